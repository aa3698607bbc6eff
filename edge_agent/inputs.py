"""What the core is told and what it asks for: the words between shell and core."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from decoders.uplink import NO_RSSI, NO_SNR, Ack, RowKind
from decoders.value import value
from edge_agent.early import Ahead
from edge_agent.leaks_episodes import Kind
from edge_agent.outbox import Draft


@value
class Now:
    """The instant of an input.

    at        µs since 1970 UTC, the gateway's clock: stamps what is said
    wall_s    monotonic seconds: times out retries
    chance    [0, 1), spreads retries of many gateways
    """

    at: int
    wall_s: float
    chance: float = 0.5


@value
class Heard:
    """One frame from a radio or a network server. Units as in `decoders.uplink.Row`.

    flags    ALREADY_DECRYPTED, TEACHES_FORMAT and NETWORK_CHECKED, where the source knows
    key      the meter's key where the source brings it, else the key file's is used
    code     the source's own verdict, e.g. "crc": the frame is kept as undecodable
    token    what the source wants back once the frame is on disk
    memory   what the source must not forget once the frame is on disk: see SourceMemory
    """

    kind: RowKind
    frame: bytes
    heard_at: int
    flags: int = 0
    radio: int = 0
    session: int = 0
    counter: int = 0
    port: int = 0
    rssi: int = NO_RSSI
    snr: int = NO_SNR
    key: bytes | None = field(default=None, repr=False)
    code: str = ""
    token: object = None
    memory: SourceMemory | None = None


@value
class SourceMemory:
    """A checkpoint of a source, under a name that begins with "s/". It is an effect, too."""

    name: str
    packed: bytes


@value
class BadInput:
    """Something a source delivered that is no frame at all."""

    source: str
    code: str
    detail: str
    given: bytes
    token: object = None


@value
class SourceChanged:
    """A source went down, came up, or has nothing more to say."""

    source: str
    kind: str  # "source_down" | "source_up" | "source_finished"
    reason: str


@value
class AckReceived:
    """at: when it came, by the gateway's clock; None = with this input."""

    ack: Ack
    at: int | None = None


@value
class Connected:
    """The cloud link stands and the subscription was granted."""


@value
class Disconnected:
    reason: str


@value
class Delivered:
    """The broker has a message of ours. Nothing is stored by that, but the line is free again."""

    rows: int = 0


@value
class Tick:
    """Nothing happened for a moment.

    news   health figures changed since the last message
    free   the line to the broker takes another message now
    """

    news: bool = False
    free: bool = True


@value
class Committed:
    """The outbox holds rows first … head now; `shed` rows were given up for them."""

    first: int
    head: int
    shed_rows: int = 0
    shed_from_at: int = 0
    shed_to_at: int = 0
    shed_kinds: tuple[tuple[str, int], ...] = ()  # undecodable, sub_hourly, hourly, own → rows


@value
class Published:
    """A message of `rows` rows up to `last` was handed over; 0 = a hello.

    sent_at   the message's own stamp, by the gateway's clock
    ahead     its rows were of this kind, ahead of their turn; `reach`: the search for such rows
              has come so far, whether there were any or not
    """

    last: int
    sent_at: int
    rows: int = 0
    ahead: Ahead = Ahead.NONE
    reach: int = 0


@value
class StreamRestarted:
    stream: bytes
    head: int


@value
class Stopping:
    """The sources have stopped, and the agent is about to: say what is still to be said."""


@value
class ClockStepped:
    """Somebody set the gateway's clock: by so many µs, from the one instant to the other.

    first   the number of the first row after it; 0 = the next one after what is committed
    """

    from_at: int
    to_at: int
    first: int = 0


@value
class NightFinding:
    """What flows in a meter. rate_lph: l/h; days: since when, whole days."""

    meter: str
    kind: Kind
    rate_lph: int
    days: int


@value
class Scanned:
    """What a night's scan found, or why there was none.

    ended         (natural id, kind) of open episodes whose water has stopped
    unavailable   empty, or why this machine leaves the scan to the cloud
    """

    found: tuple[NightFinding, ...] = ()
    ended: tuple[tuple[str, Kind], ...] = ()
    unavailable: str = ""


Input = (
    Heard
    | SourceMemory
    | BadInput
    | SourceChanged
    | AckReceived
    | Connected
    | Disconnected
    | Delivered
    | Tick
    | Committed
    | Published
    | StreamRestarted
    | ClockStepped
    | Stopping
    | Scanned
)


@value
class Store:
    """Commit these rows, and with them what `remember` names, all or nothing.

    remember   names of meters whose memory goes into the same transaction
    layouts    compact layouts learned from these rows
    """

    rows: tuple[Draft, ...]
    remember: tuple[str, ...] = ()
    layouts: tuple[bytes, ...] = ()


@value
class Settle:
    """Tell the source, after the next commit, that this is on disk or needs no disk."""

    token: object


@value
class Forget:
    """Drop the memory of meters that made room for others."""

    names: tuple[str, ...]


Figures = Mapping[str, int]
