"""A twin as it waits for its next record: one object of a few flat parts instead of some fifty.

    Twin -> pack -> Packed -> observe (telemetry, most of the time) -> dump -> JSON of design section 6
                           -> unpack -> Twin -> apply (every other record) -> pack

Of 100,000 twins hardly one is in the processor's cache when its record comes, so time and memory go by
the number of objects: numbers that telemetry moves are one `bytes`, values are their JSON, and what
telemetry leaves alone is JSON made once, by `pack`. `observe` is `apply` for telemetry that is all newer
and nothing else, and does nothing for any other record (tests/property/test_laws_packed.py).

The document ends with `reported`: so all that is fixed is one piece, between the numbers and the values.
"""

import re
import struct
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final, NamedTuple, cast

import orjson

from twin import document
from twin.document import column, text_of
from twin.reported import Group, Reported, without
from twin.wire import columnar, topics
from twin.wire.columnar import Column, origin
from twin.wire.errors import Malformed
from twin.wire.records import Twin
from twin.wire.telemetry import Sample, shared_names

_NUMBERS: Final = struct.Struct("<12q")
"""epoch, created_at, revision, updated_at | seen, session of the presence | partition, offset of the
telemetry applied last | t, n, s, o of the newest group. `_NONE` where there is none."""
_STANDING: Final = struct.Struct("<8q")
_GROUP: Final = struct.Struct("<4q")
_GROUP_AT: Final = _STANDING.size
_VERSION: Final = struct.Struct("<3q")
_NUMBER: Final = struct.Struct("<q")
_SEEN_AT: Final = 4 * _NUMBER.size
_NONE: Final = -1
_NO_GROUP: Final = Group((), (), _NONE, _NONE, _NONE, _NONE)
_UNHEARD: Final = -1
"""A `session` whose telemetry does not say that the car was heard: of a presence without `seen`."""
_STALE: Final = -2
"""Telemetry may end this presence, so it is not plain."""

_MOVING: Final = {
    "epoch",
    "vehicle_id",
    "revision",
    "updated_at",
    "applied",
    "presence",
    "reported",
}
"""What is not in the text, or not as it is in the document."""
_PRESENCE: Final = b'"presence":{'
_SIGNALS: Final = b',"reported":{'
_ORIGIN: Final = re.compile(rb',"t":(-?\d+),"n":(-?\d+),"s":(-?\d+),"o":(-?\d+)}').search


Version = tuple[int, int, int]
"""Epoch of the owner, creation (ms), revision: the greater is the newer document."""


class Standing(NamedTuple):
    """What telemetry alone does not change, of what lists show. `alarm_since`: ms, 0 = no alarm."""

    presence: str
    health: str
    fleet: str
    model: str
    firmware: str
    open_commands: int
    alarm_since: int


class Packed:
    """One twin. `observe` and `written_by` change it; after anything else it is packed anew."""

    __slots__ = ("applied", "more", "names", "numbers", "standing", "text", "values")

    def __init__(
        self, numbers: bytes, applied: bytes, text: bytes, groups: list[Group], standing: Standing
    ) -> None:
        self.numbers = numbers
        self.applied = applied
        """What was applied of other topics, as members of JSON, each with a comma in front."""
        self.text = text
        """Of the document what is between `presence.seen` and the members of `reported`."""
        self.names: tuple[str, ...] | None = None
        self.values: tuple[float, ...] | bytes = b""
        """Those of `names`; JSON as soon as they were dumped."""
        if groups and not groups[-1].suspect:
            *groups, newest = groups
            self.names, self.values = newest.names, text_of(newest.values)
        self.more = tuple(groups)
        self.standing = standing

    @property
    def version(self) -> Version:
        return cast(Version, _VERSION.unpack_from(self.numbers))

    @property
    def seen(self) -> int | None:
        """When the car was heard last (ms)."""
        (seen,) = _NUMBER.unpack_from(self.numbers, _SEEN_AT)
        return seen if seen >= 0 else None

    def written_by(self, epoch: int) -> None:
        """It is this owner's state from now on (law 5)."""
        number = _NUMBER.pack(epoch)
        if not self.numbers.startswith(number):
            self.numbers = number + self.numbers[_NUMBER.size :]

    def observe(self, sample: Sample, partition: int, offset: int, at: int) -> bool | None:
        """Take telemetry that is all newer: True. False: it was applied before (law 2).

        None: it asks for more than new values, so `apply` must decide; nothing is changed.
        """
        (
            epoch, created, revision, _, seen, session, where, last, t, n, s, o
        ) = _NUMBERS.unpack(self.numbers)  # fmt: skip
        if last >= offset and where == partition:
            return False
        if session == _STALE or sample.suspect or not sample.names:
            return None
        order = time, of, sequence = sample.event_time, sample.session, sample.sequence
        names = sample.names
        if self.names is names:
            # All of its signals are here, so one comparison decides for all (law 1).
            if time <= t and order <= (t, n, s):
                return None
            t, n, s, o = time, of, sequence, offset
            self.values = sample.values
        elif group := self._group_of(names):
            if order <= (group.t, group.n, group.s):
                return None
            group.values, group.suspect = sample.values, ()
            group.t, group.n, group.s, group.o = time, of, sequence, offset
        elif order > (t, n, s) and all((one.t, one.n, one.s) < order for one in self.more):
            self.more = tuple(without(self.groups(), names))
            self.names, self.values = names, sample.values
            t, n, s, o = time, of, sequence, offset
        else:
            return None
        if at > seen and session != _UNHEARD and of in (0, session):
            seen = at
        self.numbers = _NUMBERS.pack(
            epoch, created, revision + 1, at, seen, session, partition, offset, t, n, s, o
        )
        return True

    def _group_of(self, names: tuple[str, ...]) -> Group | None:
        """Of a car whose records carry other signals in turn."""
        for group in self.more:
            if group.names is names:
                return group
        return None

    def groups(self) -> list[Group]:
        """What came in the same record; that of `names` is the last."""
        groups = list(self.more)
        if self.names is not None:
            groups.append(
                Group(*self.values_of()[-1], *_GROUP.unpack_from(self.numbers, _GROUP_AT))
            )
        return groups

    def values_of(self) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Names and values of the signals, in parts; those of `names` are the last."""
        found = [(group.names, group.values) for group in self.more]
        if self.names is not None:
            values = self.values
            if not isinstance(values, tuple):
                values = tuple(orjson.loads(b"[%b]" % values))
            found.append((self.names, values))
        return found

    def write(self, vehicle_id: str) -> tuple[bytes, list[Column]]:
        """The document up to its signals, and these (`wire.columnar`)."""
        columns = [column(group) for group in self.more]
        if self.names is not None:
            values = self.values
            if isinstance(values, tuple):
                values = self.values = text_of(values)
            came = origin(*_GROUP.unpack_from(self.numbers, _GROUP_AT))
            columns.append(Column(self.names, values, came))
        return self.beginning(vehicle_id) + self.text, columns

    def beginning(self, vehicle_id: str) -> bytes:
        """Of the document what is in front of `text`."""
        (
            epoch, _, revision, updated, seen, _, partition, offset
        ) = _STANDING.unpack_from(self.numbers)  # fmt: skip
        telemetry = b'"telemetry":[%d,%d]' % (partition, offset)
        return (
            b'{"epoch":%d,"vehicle_id":"%b","revision":%d,"updated_at":%d,"applied":{%b},'
            b'"presence":{%b'
            % (
                epoch,
                vehicle_id.encode(),
                revision,
                updated,
                telemetry + self.applied if offset >= 0 else self.applied[1:],
                b'"seen":%d,' % seen if seen >= 0 else b"",
            )
        )

    def dump(self, vehicle_id: str) -> bytes:
        """The document as it is stored and shown."""
        return columnar.document(*self.write(vehicle_id))

    def unpack(self, vehicle_id: str) -> Twin:
        """The twin, for `apply`. This stays as it is."""
        (
            epoch, _, revision, updated, seen, _, partition, offset
        ) = _STANDING.unpack_from(self.numbers)  # fmt: skip
        twin = orjson.loads(b'{"presence":{%b}}' % self.text)
        applied = orjson.loads(b"{%b}" % self.applied[1:])
        if offset >= 0:
            applied[topics.TELEMETRY] = [partition, offset]
        if seen >= 0:
            twin["presence"]["seen"] = seen
        twin["reported"] = Reported([replace(group) for group in self.groups()])
        twin.update(
            epoch=epoch,
            vehicle_id=vehicle_id,
            revision=revision,
            updated_at=updated,
            applied=applied,
        )
        return cast(Twin, twin)


def pack(twin: Twin) -> Packed:
    """A twin at rest. It shares nothing with `twin` that `apply` changes."""
    presence = dict(twin["presence"])
    presence.pop("seen", None)
    fixed = {name: part for name, part in twin.items() if name not in _MOVING}
    text = orjson.dumps({"presence": presence, **fixed})[1 + len(_PRESENCE) : -1] + _SIGNALS
    return _packed(
        twin, text, [replace(group) for group in cast(Reported, twin["reported"]).groups]
    )


def load(data: bytes) -> tuple[Packed, Twin]:
    """The twin behind `dump`'s bytes, and its fields; `reported` may not be among them.

    Raises `Malformed` when the bytes are no document.
    """
    try:
        with suppress(orjson.JSONDecodeError):
            usual = _load(data)
            if usual is not None:
                return usual
        twin = document.load(data)
        return pack(twin), twin
    except (ValueError, LookupError, TypeError, AttributeError, struct.error) as error:
        raise Malformed(f"not a twin's document: {error!r:.120}") from error


def _load(data: bytes) -> tuple[Packed, Twin] | None:
    """A document as `dump` makes it of most twins, read in half of the parser's time; else None."""
    at = data.rfind(_SIGNALS)
    members = data[at + len(_SIGNALS) : -2]
    found = _ORIGIN(members)
    if at < 0 or found is None:
        return None
    pairs = b"".join(members.split(found[0])).replace(b':{"v":', b",")
    if b"}" in pairs:
        return None  # not all of one record
    signals = orjson.loads(b"[%b]" % pairs)
    names, values = tuple(signals[::2]), tuple(signals[1::2])
    if len(values) != len(names) or not {*map(type, values)} <= {int, float}:
        return None
    fields = orjson.loads(data[:at] + b"}")
    group = Group(shared_names(names), values, *map(int, found.groups()))  # type: ignore[arg-type]
    packed = _packed(fields, b"", [group])
    beginning = packed.beginning(fields["vehicle_id"])
    if not data.startswith(beginning):
        return None
    packed.text = data[len(beginning) : at + len(_SIGNALS)]
    return packed, fields


def _packed(twin: Twin, text: bytes, groups: list[Group]) -> Packed:
    presence, applied = twin["presence"], dict(twin["applied"])
    where, last = applied.pop(topics.TELEMETRY, (_NONE, _NONE))
    state, seen = presence["state"], presence.get("seen", _NONE)
    session = _STALE if state == "stale" else _UNHEARD if seen < 0 else presence["session"]
    newest = groups[-1] if groups and not groups[-1].suspect else _NO_GROUP
    numbers = _NUMBERS.pack(
        twin.get("epoch", 0), twin["created_at"], twin["revision"], twin["updated_at"],
        seen, session, where, last, newest.t, newest.n, newest.s, newest.o,
    )  # fmt: skip
    others = b"," + orjson.dumps(applied)[1:-1] if applied else b""
    return Packed(numbers, others, text, groups, _standing(twin))


def _standing(twin: Twin) -> Standing:
    attributes, health = twin["attributes"], twin["health"]
    return _shared(
        twin["presence"]["state"],
        health["state"],
        attributes.get("fleet", ""),
        attributes.get("model", ""),
        attributes.get("firmware", ""),
        len(twin["commands"]["open"]),
        health["since"] if health["state"] == "alarm" else 0,
    )


@lru_cache(maxsize=4096)
def _shared(*standing: Any) -> Standing:
    """One object for the many twins that stand alike."""
    return Standing(*standing)
