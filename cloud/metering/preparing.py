"""From the rows of a batch to what should be recorded of it: identities, instants, refusals.

Everything here is computed before a row of the database is locked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from cloud.metering import alerts, rules
from cloud.metering.clock_offsets import Offset
from cloud.metering.dead_letters import RejectedRow
from cloud.metering.frames import Uplinked
from cloud.metering.model import (
    DAY_US,
    SECOND_US,
    Anomaly,
    Bools,
    ClockSource,
    Int16s,
    Int64s,
    Readings,
    Rejection,
)
from cloud.metering.registry import NOBODY, Meter
from cloud.metering.reports import BadInput, Report, report_of
from cloud.metering.store import Receptions
from decoders import cbor
from decoders.batch import NO_INSTANT
from decoders.batch import Columns as Decoded
from decoders.uplink import Row, RowFlag, RowKind, Rows
from decoders.value import value

DAYS_MAX = 400
"""Day partitions one batch may ask for: a year of backlog and some; older rows wait as dead letters
rather than let one bad clock make thousands of tables."""

_VERDICTS = {rules.FUTURE: Rejection.FUTURE, rules.IMPLAUSIBLE: Rejection.IMPLAUSIBLE_DATE}
_WHY = {
    Rejection.FUTURE: "its instant is in the future",
    Rejection.IMPLAUSIBLE_DATE: "its instant is too long ago to be true",
    Rejection.UNKNOWN_METER: "nobody registered this meter",
    Rejection.MALFORMED_ROW: "its payload does not say what it must",
}


@value
class Prepared:
    """All there is to record of some rows of one batch."""

    readings: Readings  # as decoded: unsorted, maybe with repeats
    receptions: Receptions
    info_code: Int64s  # (receptions,)
    has_info: Bools  # (receptions,)
    meter_keys: Int64s  # distinct, rising: all meters whose state is to be locked
    max_flow_lph: Int64s  # beside meter_keys
    anomalies: tuple[tuple[Anomaly, Meter], ...]
    reports: tuple[Report, ...]
    layouts: tuple[tuple[bytes, int], ...]  # each once, and the first row that teaches it
    rejected: tuple[RejectedRow, ...]
    last_heard_at: int | None  # µs, corrected, of the last row

    def at_row(self, index: int) -> Prepared:
        """Return the same for a single row whose place in its batch is `index`."""
        moved = np.int32(index)
        return replace(
            self,
            readings=replace(self.readings, row=self.readings.row + moved),
            receptions=replace(self.receptions, row=self.receptions.row + moved),
            layouts=tuple((layout, index) for layout, _ in self.layouts),
            rejected=tuple(replace(each, index=index) for each in self.rejected),
        )


@value
class Known:
    """The meters behind `Decoded.names`, as columns (names + 1,); the last entry is "nobody"."""

    meter_key: Int64s  # 0 = unknown
    offset_us: Int64s
    max_flow_lph: Int64s
    key_version: Int16s  # (names + 1, KEYS_TRIED_MAX), newest first; 0 = no such key

    @staticmethod
    def of(names: Sequence[str], meters: Mapping[str, Meter]) -> Known:
        """Look the names up."""
        found = [meters[name].numbers if name in meters else NOBODY for name in names]
        flat = np.frombuffer(b"".join([*found, NOBODY]), np.int64)
        columns = flat.reshape(len(found) + 1, -1)
        return Known(
            meter_key=columns[:, 0],
            offset_us=columns[:, 1] * SECOND_US,
            max_flow_lph=columns[:, 2],
            key_version=columns[:, 3:].astype(np.int16),
        )


def prepare(
    rows: Rows,
    up: Uplinked,
    decoded: Decoded,
    *,
    taken: range,
    skip: frozenset[int] = frozenset(),
    meters: Mapping[str, Meter],
    offset: Offset,
    received_at: int,
) -> Prepared:
    """Decide what each taken row is worth.

    taken    indices of the batch's rows that follow on what is stored
    skip     those of them that came early and are stored already
    meters   by natural id; a name that is not in it is an unknown meter
    offset   of the gateway's clock
    """
    trusted: Bools = ~up.is_doubtful & offset.trusted
    heard_at, when = rules.corrected_heard_at(
        up.heard_at, correction_us=offset.correction_us, trusted=trusted, received_at=received_at
    )
    known = Known.of(decoded.names, meters)
    readings, code = _readings(
        decoded, known, heard_at, when, trusted=trusted, received_at=received_at
    )
    wanted = _wanted(decoded, taken, skip)
    good = wanted & (code == "")
    of_good = good[decoded.of_frame] & ~_teaches(up, decoded)[decoded.of_frame]
    receptions = _receptions(up, decoded, known, heard_at=heard_at, good=good)
    rejected = _rejections(rows, up, decoded, code=code, chosen=wanted & (code != ""))
    anomalies, reports, unreadable = _other_rows(
        rows, up, taken=frozenset(taken) - skip, heard_at=heard_at, when=when, meters=meters
    )
    meter_keys, max_flow_lph = _meters_heard(known, receptions, anomalies)
    return Prepared(
        readings=readings.take(of_good),
        receptions=receptions,
        info_code=decoded.info_code[good],
        has_info=decoded.has_info[good],
        meter_keys=meter_keys,
        max_flow_lph=max_flow_lph,
        anomalies=tuple(anomalies),
        reports=tuple(reports),
        layouts=_distinct_layouts(decoded),
        rejected=tuple(sorted([*rejected, *unreadable], key=lambda one: one.index)),
        last_heard_at=int(heard_at[taken.stop - 1]) if taken else None,
    )


def _wanted(decoded: Decoded, taken: range, skip: frozenset[int]) -> Bools:
    """Return which frames are of taken rows that were not taken before."""
    wanted: Bools = (decoded.row >= taken.start) & (decoded.row < taken.stop)
    if skip:
        wanted &= ~np.isin(decoded.row, np.fromiter(skip, np.int64, len(skip)))
    return wanted


def anomaly_meters(rows: Rows, up: Uplinked) -> set[str]:
    """Return the natural ids that well-formed anomaly rows speak of."""
    found = set()
    for index in np.flatnonzero(up.kind == RowKind.ANOMALY).tolist():
        try:
            found.add(alerts.anomaly_of(_payload(rows, up, index)).meter)
        except ValueError:
            continue
    return found


def row_at(rows: Rows, up: Uplinked, index: int) -> Row:
    """Return one row of the batch as an object, its instant by the clock as it was set last."""
    start = int(up.start[index])
    doubt = RowFlag.FOREIGN_CLOCK if up.is_doubtful[index] else RowFlag(0)
    return Row(
        seq=int(up.seq[index]),
        heard_at=int(up.heard_at[index]),
        kind=RowKind(int(up.kind[index])),
        flags=RowFlag(int(up.flags[index])) | doubt,
        radio=int(up.radio[index]),
        session=int(up.session[index]),
        counter=int(up.counter[index]),
        port=int(up.port[index]),
        rssi=int(up.rssi[index]),
        snr=int(up.snr[index]),
        payload=rows.payload[start : start + int(up.length[index])],
    )


def _readings(
    decoded: Decoded,
    known: Known,
    heard_at: Int64s,
    when: Int16s,
    *,
    trusted: Bools,
    received_at: int,
) -> tuple[Readings, np.typing.NDArray[Any]]:
    """Return every decoded reading, and for each frame the code it is refused with or ""."""
    of_frame, name = decoded.of_frame, decoded.name
    logged = decoded.local_at != NO_INSTANT
    slot = rules.hour_slot(heard_at)[decoded.row]
    local = decoded.local_at - known.offset_us[name][of_frame]
    register_at = np.where(logged, local, slot[of_frame])
    gateways = np.where(trusted, ClockSource.GATEWAY_TRUSTED, ClockSource.GATEWAY_UNTRUSTED)
    heard_by = gateways[decoded.row][of_frame]
    readings = Readings(
        meter_key=known.meter_key[name][of_frame],
        register_at=register_at,
        register_l=decoded.litres,
        heard_at=heard_at[decoded.row][of_frame],
        row=decoded.row[of_frame],
        clock=np.where(logged, ClockSource.METER, heard_by).astype(np.int16),
        quality=np.zeros(len(of_frame), np.int16),
    )
    verdict = when[decoded.row].copy()
    oldest = _oldest_allowed(register_at)
    instants = rules.register_instants_verdict(
        register_at, received_at=received_at, oldest_us=oldest
    )
    np.maximum.at(verdict, of_frame, instants)
    code = np.array(["", _VERDICTS[rules.FUTURE], _VERDICTS[rules.IMPLAUSIBLE]], object)[verdict]
    unknown = known.meter_key[name] == 0
    code[unknown & (code == "")] = Rejection.UNKNOWN_METER
    refused = decoded.refused >= 0
    if refused.any():
        codes = np.array(decoded.codes, object)[decoded.refused[refused]]
        codes[unknown[refused] & (codes == "key_missing")] = Rejection.UNKNOWN_METER
        code[refused] = codes
    return readings, code


def _oldest_allowed(register_at: Int64s) -> int:
    """Return the instant before which readings would need more than DAYS_MAX partitions."""
    days = np.unique(register_at // DAY_US)
    return int(days[-DAYS_MAX]) * DAY_US if len(days) > DAYS_MAX else 0


def _teaches(up: Uplinked, decoded: Decoded) -> Bools:
    teaches: Bools = (up.flags[decoded.row] & RowFlag.TEACHES_FORMAT) != 0
    return teaches


def _distinct_layouts(decoded: Decoded) -> tuple[tuple[bytes, int], ...]:
    first: dict[bytes, int] = {}
    for frame, layout in decoded.layouts:
        first.setdefault(layout, int(decoded.row[frame]))
    return tuple(first.items())


def _receptions(
    up: Uplinked, decoded: Decoded, known: Known, *, heard_at: Int64s, good: Bools
) -> Receptions:
    row, name = decoded.row[good], decoded.name[good]
    wmbus = up.kind[row] == RowKind.WMBUS
    decrypted = (up.flags[row] & RowFlag.ALREADY_DECRYPTED) != 0
    opened_by = known.key_version[name, decoded.key[good]]
    return Receptions(
        frame=decoded.frame[good],
        row=row,
        meter_key=known.meter_key[name],
        heard_at=heard_at[row],
        counter=decoded.counter[good],
        rssi_dbm=up.rssi[row],
        snr_qdb=up.snr[row],
        radio=up.kind[row].astype(np.int16),
        integrity=decoded.integrity[good],
        key_version=np.where(wmbus & ~decrypted, opened_by, 0).astype(np.int16),
        flags=up.flags[row].astype(np.int16),
        register_l=decoded.register_l[good],
        has_register=decoded.has_register[good],
    )


def _meters_heard(
    known: Known, receptions: Receptions, anomalies: Sequence[tuple[Anomaly, Meter]]
) -> tuple[Int64s, Int64s]:
    """Return the meters whose state is to be locked, rising, and what their pipes can carry."""
    suspected = np.array(
        [(meter.meter_key, meter.max_flow_lph) for _, meter in anomalies], np.int64
    ).reshape(-1, 2)
    keys, place = np.unique(np.concatenate([known.meter_key, suspected[:, 0]]), return_index=True)
    flows = np.concatenate([known.max_flow_lph, suspected[:, 1]])[place]
    heard = np.unique(np.concatenate([receptions.meter_key, suspected[:, 0]]))
    return heard, flows[np.searchsorted(keys, heard)]


def _rejections(
    rows: Rows, up: Uplinked, decoded: Decoded, *, code: np.typing.NDArray[Any], chosen: Bools
) -> list[RejectedRow]:
    """Return the chosen frames as refused rows, each with its code."""
    details, rejected = decoded.details, []
    for frame in np.flatnonzero(chosen).tolist():
        index, name, why = int(decoded.row[frame]), int(decoded.name[frame]), str(code[frame])
        rejected.append(
            RejectedRow(
                index=index,
                row=row_at(rows, up, index),
                code=why,
                detail=details.get(frame) or _WHY.get(why, why),
                meter=decoded.names[name] if name >= 0 else None,
            )
        )
    return rejected


def _other_rows(
    rows: Rows,
    up: Uplinked,
    *,
    taken: frozenset[int],
    heard_at: Int64s,
    when: Int16s,
    meters: Mapping[str, Meter],
) -> tuple[list[tuple[Anomaly, Meter]], list[Report], list[RejectedRow]]:
    """Return anomalies with their meters, reports, and the rows that are neither."""
    anomalies: list[tuple[Anomaly, Meter]] = []
    reports: list[Report] = []
    rejected: list[RejectedRow] = []
    others = np.flatnonzero((up.kind == RowKind.ANOMALY) | (up.kind == RowKind.REPORT))
    for index in (i for i in others.tolist() if i in taken):
        try:
            payload = _payload(rows, up, index)
            if up.kind[index] == RowKind.REPORT:  # kept whatever its clock: it may be about that
                report = report_of(payload, heard_at=int(heard_at[index]))
                if isinstance(report, Report):
                    reports.append(report)
                else:
                    rejected.append(_unread(rows, up, index, report))
                continue
            said = alerts.anomaly_of(payload)
        except ValueError as error:
            rejected.append(_refused(rows, up, index, Rejection.MALFORMED_ROW, str(error)))
            continue
        meter = meters.get(said.meter)
        code = _VERDICTS.get(int(when[index])) or (Rejection.UNKNOWN_METER if not meter else None)
        if code is not None or meter is None:
            why = code or Rejection.UNKNOWN_METER
            rejected.append(_refused(rows, up, index, why, _WHY[why]))
            continue
        # an agent detects at the row's heard_at, and by its own clock: here it is corrected
        anomalies.append((replace(said, detected_at=int(heard_at[index])), meter))
    return anomalies, reports, rejected


def _refused(rows: Rows, up: Uplinked, index: int, code: str, detail: str) -> RejectedRow:
    return RejectedRow(index=index, row=row_at(rows, up, index), code=code, detail=detail)


def _unread(rows: Rows, up: Uplinked, index: int, bad: BadInput) -> RejectedRow:
    """Return what a gateway's source delivered, in the place of the report about it."""
    row = replace(row_at(rows, up, index), payload=bad.given)
    return RejectedRow(index=index, row=row, code=bad.code, detail=bad.detail)


def _payload(rows: Rows, up: Uplinked, index: int) -> Any:  # noqa: ANN401  any CBOR
    start = int(up.start[index])
    try:
        return cbor.loads(rows.payload[start : start + int(up.length[index])])
    except Exception as error:  # cbor2 leaks TypeError, RecursionError, … on damaged input
        raise ValueError(f"not CBOR: {type(error).__name__}") from None
