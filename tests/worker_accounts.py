"""The accounts of a load that twin workers have decided: what must be there, from the log alone.

    input topics -> what each record must have brought about -> twins, ledger, changes, downlink, Redis

Imports nothing that decides: the fold of telemetry, merge and counting are made here once more, for
the cars of `tests/worker_load.py`. `faults` names what is not as it must be; nothing is found when
nothing was lost, doubled, overwritten by an older state or told wrongly.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from tests.worker_records import Car, Fold, Log, Place, Record, brief
from twin.wire import codec, topics

FINAL = ("succeeded", "failed", "rejected", "expired", "cancelled", "undeliverable")
LIVES = {
    "cmd": ["queued", "delivered", "accepted", "running", "succeeded"],
    "sent": ["queued", "sent"],
    "due": ["queued", "expired"],
}
"""States of each command of a kind of car, in order."""
STRANGE = ("stray", "alien")
"""Cars whose outcomes are of commands that nobody knows."""
FORGOTTEN = (
    ", or not any more: one that has ended is kept for 24 h, for 7 days while the car owes its end"
)
"""Where there is a twin, it may have been one that is over."""


class Accounts(Log):
    """The accounts of `tests/worker_load.py`."""

    def faults(self) -> list[str]:
        """All that is wrong, a line each."""
        found = [f"{car}: {fault}" for car in self.cars for fault in self._of(self.cars[car])]
        return found + self.shown_otherwise()

    def _of(self, car: Car) -> Iterator[str]:
        newest = self.twins.get(car.vehicle_id)
        twin = newest.fields if newest is not None and newest.value is not None else None
        yield from _contents("changes", car.changes)
        yield from _contents("downlink", car.downlinks)
        yield from _rejections(car)
        yield from self._answers(car, twin)
        if car.kind in ("gone", "ghost", "alien"):
            if twin is not None:
                yield f"it is there: {brief(twin)}"
            return
        if twin is None:
            yield "it is not there"
            return
        yield from self._document_of(car, twin)
        yield from self._commands_of(car, twin)

    def _document_of(self, car: Car, twin: Any) -> Iterator[str]:
        life = 2 if car.kind == "again" else 1
        fold = Fold()
        for record in car.inputs[topics.TELEMETRY]:
            said = codec.decode_telemetry(record.value)
            if said.session == life:
                fold.add(said, record.offset)
        if twin["reported"] != fold.reported:
            yield f"reported is {twin['reported']}, the fold {fold.reported}"
        if twin.get("counts") != fold.counts:
            yield f"counts are {twin.get('counts')}, those of the log {fold.counts}"
        told = self._consequences(car)
        if twin["revision"] != fold.newer + len(told):
            yield f"revision {twin['revision']}, but {fold.newer} telemetry, {len(told)} other records"
        if car.kind in ("again", "gone"):
            return
        changed = {_why(change): change.fields["kind"] for change in car.changes}
        for place, kind in told.items():
            if kind is not None and changed.get(place) != kind:
                yield f"{place} told {changed.get(place)}, not {kind}"
        others = {place for place, kind in changed.items() if kind != "created"} - told.keys()
        if car.kind != "due" and others:
            yield f"changes of {others} were told"
        ids = Counter(change.fields["id"] for change in car.changes)
        whys = {change.fields["id"]: _why(change) for change in car.changes}
        again = [why for why, count in Counter(whys.values()).items() if count > 1]
        if again and car.kind != "made":
            yield f"told under several ids: {again} of {ids}"

    def _consequences(self, car: Car) -> dict[Place, str | None]:
        """Records beside telemetry that must have changed the twin, and the kind of change told."""
        told: dict[Place, str | None] = {}
        session = 0
        for record in car.inputs[topics.PRESENCE]:
            if record.fields["session"] > session:
                # A new session of a car that is online is not told.
                told[record.place] = None if session else "presence"
                session = record.fields["session"]
        for request_id, record in car.asked().items():
            reply = self.replies.get(request_id)
            kind = record.fields["kind"]
            if reply is not None and reply["status"] < 300 and kind != "delete":
                # The request that makes the twin tells that, too.
                told[record.place] = kind
        for topic in (topics.OUTCOMES, topics.DELIVERIES):
            if car.kind not in STRANGE:
                told.update({record.place: "command" for record in car.inputs[topic]})
        if car.kind == "due":
            # One of its deadline records each: which one came in time is not said.
            expired = sum(f.fields["state"] == "expired" for f in self._entries(car))
            told.update({("expired", 0, number): None for number in range(expired)})
        if car.kind == "again":
            told = {}
        return told

    def _answers(self, car: Car, twin: Any) -> Iterator[str]:
        asked = car.asked()
        versions, properties = [], {}
        accepted_attributes = None
        for request_id, record in asked.items():
            request, reply = record.fields, self.replies.get(request_id)
            if reply is None:
                yield f"no reply to {request_id}"
                continue
            kind, status = request["kind"], reply["status"]
            if kind == "desired" and status == 200:
                versions.append(reply["body"]["version"])
                properties.update(request["body"]["value"])
                if reply["body"]["properties"] != properties:
                    yield f"{request_id} says {reply['body']['properties']}, not {properties}"
            elif kind == "attributes" and status in (200, 201):
                accepted_attributes = request["body"]["value"]
            elif kind == "command":
                yield from self._command_answer(car, request, reply)
            expected = {
                "desired": (200, 412) if car.kind == "match" else (200,),
                "attributes": (201,) if car.kind == "made" else (200,),
                "command": (404,) if car.kind in ("ghost", "late") else (201,),
                "delete": (204,),
            }[kind]
            if status not in expected:
                yield f"{request_id} got {status}: {reply}"
            if status < 300 and car.kind not in ("again", "gone", "cmd"):
                said = {c.fields["revision"] for c in car.changes if _why(c) == record.place}
                if said != {reply["revision"]}:
                    yield f"{request_id} says revision {reply['revision']}, its changes {said}"
        if versions != list(range(1, len(versions) + 1)):
            yield f"versions in the order of the requests are {versions}"
        if twin is None:
            return
        if car.kind == "match" and 2 * len(versions) != len(asked):
            yield f"{len(versions)} of {len(asked)} conditional patches accepted"
        desired = twin["desired"]
        if (desired["version"], desired["properties"]) != (len(versions), properties):
            yield f"desired {desired['version']} {desired['properties']}: {versions} {properties}"
        if accepted_attributes is not None and twin["attributes"] != accepted_attributes:
            yield f"attributes {twin['attributes']}, accepted last {accepted_attributes}"

    def _command_answer(self, car: Car, request: Any, reply: Any) -> Iterator[str]:
        command_id = request["body"]["id"]
        entry = self.ledger.get(f"{car.vehicle_id}/{command_id}")
        there = entry is not None and entry.value is not None
        if reply["status"] == 201 and reply["body"]["id"] != command_id:
            yield f"{request['request_id']} was asked {command_id}, says {reply['body']['id']}"
        if there != (reply["status"] == 201 and car.kind != "gone"):
            yield f"{request['request_id']} got {reply['status']}; in the ledger: {there}"

    def _entries(self, car: Car) -> list[Record]:
        prefix = f"{car.vehicle_id}/"
        return [r for key, r in self.ledger.items() if key.startswith(prefix) and r.value]

    def _commands_of(self, car: Car, twin: Any) -> Iterator[str]:
        entries = {entry.fields["id"]: entry.fields for entry in self._entries(car)}
        unfinished = {name for name, entry in entries.items() if entry["state"] not in FINAL}
        if set(twin["commands"]["open"]) != unfinished:
            yield f"open are {twin['commands']['open']}, in the ledger {unfinished}"
        sent = {
            record.fields["ref"] for record in car.downlinks if record.fields["kind"] == "command"
        }
        for command_id, entry in entries.items():
            states = [step["state"] for step in entry["history"]]
            if states != LIVES[car.kind]:
                yield f"{command_id} went {states}"
            if car.kind in ("cmd", "sent") and command_id not in sent:
                yield f"{command_id} was not handed to the downlink"


def _contents(topic: str, records: Iterable[Record]) -> Iterator[str]:
    """Under one id there is one content, however often it was told."""
    said: dict[str, bytes | None] = {}
    for record in records:
        ident = record.fields["id"]
        if said.setdefault(ident, record.value) != record.value:
            yield f"{topic} {ident} says {record.value!r} and {said[ident]!r}"


def _rejections(car: Car) -> Iterator[str]:
    """Outcomes of unknown commands are on `rejected`, whole and under one content; nothing else is."""
    who = car.vehicle_id if car.kind == "stray" else f"vehicle {car.vehicle_id!r}"
    expected = {}
    for record in car.inputs[topics.OUTCOMES] if car.kind in STRANGE else ():
        detail = f"{who} has no command {record.fields['command_id']}"
        if car.kind == "stray":
            detail += FORGOTTEN
        headers = {
            "reason": b"unknown_command",
            "detail": detail.encode(),
            "source": record.source.encode(),
            "attempts": b"1",
            "ingested-at": str(record.arrived).encode(),
            **{f"original-{name}": content for name, content in record.headers.items()},
        }
        expected[record.source] = record.value, headers
    told = set()
    for record in car.rejected:
        source = record.headers["source"].decode()
        told.add(source)
        if (record.value, dict(record.headers)) != expected.get(source):
            yield f"rejected: {record}, expected {expected.get(source)}"
    for source in expected.keys() - told:
        yield f"{source} is not on rejected"


def _why(change: Record) -> Place:
    why = change.fields["why"]
    return why["topic"], why["partition"], why["offset"]
