"""What a car's signals said last: `reported` of a twin, in columns.

Signals that came in one record share event time, session, sequence and offset, so they are one `Group`;
each signal is in exactly one group. A car whose records carry the same signals each time has one group,
and its next record replaces the values at once. To readers `Reported` is the mapping of the document,
signal -> {v, t, n, s, o[, q]}, made when asked for.

Law 1: a value replaces another only if (event_time, session, sequence, value bytes) is greater.
Value bytes are those of the IEEE 754 double, big-endian; between equal values the trusted one wins
over the suspect one. So any order and any duplication of records ends in the same v, t, n, s, q;
`o` says which of several equal records came first, which is the order's to say.
"""

import struct
from collections.abc import Iterator, Mapping
from operator import itemgetter

from twin.native.rest import Group, without
from twin.wire.records import SignalValue
from twin.wire.telemetry import Sample, shared_names

_bytes = struct.Struct(">d").pack
_origin = itemgetter("t", "n", "s", "o")


class Reported(Mapping[str, SignalValue]):
    """Signal values by name; only `fold` changes it. Bounded by the signals of the catalogue."""

    __slots__ = ("groups",)

    def __init__(self, groups: list[Group] | None = None) -> None:
        self.groups: list[Group] = groups or []

    @classmethod
    def of(cls, entries: Mapping[str, SignalValue]) -> "Reported":
        """The same signals in columns."""
        return cls(_grouped(entries))

    def fold(self, sample: Sample, offset: int) -> int:
        """Take the newer values of a record; returns how many were newer (law 1)."""
        names, time = sample.names, sample.event_time
        for group in self.groups:
            if group.names is not names:
                continue
            # Its signals are all in this group, so one comparison decides for all of them.
            if time == group.t:
                order, last = (sample.session, sample.sequence), (group.n, group.s)
                if order == last:
                    break
                newer = order > last
            else:
                newer = time > group.t
            if not newer:
                return 0
            group.values = sample.values
            group.t = time
            group.n = sample.session
            group.s = sample.sequence
            group.o = offset
            group.suspect = _suspect(sample) if sample.suspect else ()
            return len(names)
        order_of_sample = (time, sample.session, sample.sequence)
        if all((group.t, group.n, group.s) < order_of_sample for group in self.groups):
            return self._take_all(sample, offset)
        return self._take_newer(sample, offset)

    def value(self, name: str) -> float | None:
        """A signal's value alone; None when there is none."""
        for group in self.groups:
            if name in group.names:
                return group.values[group.names.index(name)]
        return None

    def __getitem__(self, name: str) -> SignalValue:
        for group in self.groups:
            if name in group.names:
                return _entry(group, name, group.values[group.names.index(name)])
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        for group in self.groups:
            yield from group.names

    def __len__(self) -> int:
        return sum(len(group.names) for group in self.groups)

    def __contains__(self, name: object) -> bool:
        for group in self.groups:  # noqa: SIM110 - half the time of any()
            if name in group.names:
                return True
        return False

    def __repr__(self) -> str:
        return repr(dict(self))

    def _take_all(self, sample: Sample, offset: int) -> int:
        """A record newer than everything: its signals leave the groups that they were in."""
        left = list(without(self.groups, sample.names))
        if sample.names:
            left.append(
                Group(
                    sample.names,
                    sample.values,
                    sample.event_time,
                    sample.session,
                    sample.sequence,
                    offset,
                    _suspect(sample),
                )
            )
        self.groups = left
        return len(sample.names)

    def _take_newer(self, sample: Sample, offset: int) -> int:
        """Signal by signal: of a late record some values are newer and some are not."""
        entries = dict(self)
        newer = 0
        for name, value in zip(sample.names, sample.values, strict=True):
            suspect, before = name in sample.suspect, entries.get(name)
            if before is not None and _rank(sample, value, suspect) <= _rank_of(before):
                continue
            entry = entries[name] = SignalValue(
                v=value, t=sample.event_time, n=sample.session, s=sample.sequence, o=offset
            )
            if suspect:
                entry["q"] = "suspect"
            newer += 1
        if newer:
            self.groups = _grouped(entries)
        return newer


def _rank(sample: Sample, value: float, suspect: bool) -> tuple[int, int, int, bytes, bool]:
    return sample.event_time, sample.session, sample.sequence, _bytes(value), not suspect


def _rank_of(entry: SignalValue) -> tuple[int, int, int, bytes, bool]:
    return entry["t"], entry["n"], entry["s"], _bytes(entry["v"]), "q" not in entry


def _entry(group: Group, name: str, value: float) -> SignalValue:
    entry = SignalValue(v=value, t=group.t, n=group.n, s=group.s, o=group.o)
    if name in group.suspect:
        entry["q"] = "suspect"
    return entry


def _suspect(sample: Sample) -> tuple[str, ...]:
    """Signals of the record that are suspect; those it could not carry are named in it, too."""
    return tuple(name for name in sample.suspect if name in sample.names)


def _grouped(entries: Mapping[str, SignalValue]) -> list[Group]:
    columns: dict[tuple[int, int, int, int], tuple[list[str], list[float], list[str]]] = {}
    last = None
    for name, entry in entries.items():
        origin = _origin(entry)
        if origin != last:  # rarely: then also find those that stand apart
            names, values, suspect = columns.setdefault(origin, ([], [], []))
            last = origin
        names.append(name)
        values.append(entry["v"])
        if "q" in entry:
            suspect.append(name)
    return [
        Group(shared_names(tuple(names)), tuple(values), *origin, tuple(suspect))
        for origin, (names, values, suspect) in columns.items()
    ]
