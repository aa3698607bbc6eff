"""A broker of one's own, with the faults that real ones seldom have, for tests of the link."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

CONNECT, PUBLISH, SUBSCRIBE, PINGREQ = 1, 3, 8, 12
SMALL = 16_384  # bytes of the buffer for what comes: a line has no megabytes of it


@dataclass
class OddBroker:
    """Speaks as much MQTT as one agent's link needs.

    swallow       so many messages get no PUBACK
    max_packet    said in the CONNACK of MQTT 5; a longer packet ends the connection; 0 = none
    bytes_per_s   read no faster than this; 0 = as it comes
    """

    swallow: int = 0
    max_packet: int = 0
    bytes_per_s: float = 0.0
    accepted: int = 0
    received: list[int] = field(default_factory=list)  # bytes of each message
    refused: list[int] = field(default_factory=list)  # the same, of those that were too long

    def __post_init__(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen()
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        is_5 = False
        with suppress(OSError, EOFError), client:
            while True:
                kind, body = self._packet(client)
                if kind == CONNECT:
                    is_5 = body[6] == 5
                    client.sendall(self._connack(is_5=is_5))
                elif kind == SUBSCRIBE:
                    client.sendall(_suback(body[:2], is_5=is_5))
                elif kind == PINGREQ:
                    client.sendall(b"\xd0\x00")
                elif kind == PUBLISH:
                    self._take(client, body)

    def _take(self, client: socket.socket, body: bytes) -> None:
        if self.max_packet and len(body) + 4 > self.max_packet:
            self.refused.append(len(body))
            raise EOFError
        self.received.append(len(body))
        if self.swallow > 0:
            self.swallow -= 1
            return
        topic = int.from_bytes(body[:2], "big")
        client.sendall(b"\x40\x02" + body[2 + topic : 4 + topic])

    def _connack(self, *, is_5: bool) -> bytes:
        if not is_5:
            return b"\x20\x02\x00\x00"
        said = b"\x27" + self.max_packet.to_bytes(4, "big") if self.max_packet else b""
        return bytes([0x20, 3 + len(said), 0, 0, len(said)]) + said

    def _packet(self, client: socket.socket) -> tuple[int, bytes]:
        kind = self._read(client, 1)[0] >> 4
        length = shift = 0
        while True:
            octet = self._read(client, 1)[0]
            length |= (octet & 127) << shift
            shift += 7
            if octet < 128:
                return kind, self._read(client, length)

    def _read(self, client: socket.socket, wanted: int) -> bytes:
        read = b""
        most = max(1, int(self.bytes_per_s / 10)) if self.bytes_per_s else 1 << 16
        while len(read) < wanted:
            piece = client.recv(min(wanted - len(read), most))
            if not piece:
                raise EOFError
            read += piece
            if self.bytes_per_s:
                time.sleep(len(piece) / self.bytes_per_s)
        return read


def _suback(mid: bytes, *, is_5: bool) -> bytes:
    return b"\x90\x04" + mid + b"\x00\x01" if is_5 else b"\x90\x03" + mid + b"\x01"
