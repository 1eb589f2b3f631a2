"""A partition made from the tails of its changelogs: what counts, and what is told again."""

import orjson
import pytest

from tests.worker_fakes import CAR, OTHER, Message
from twin import document
from twin.apply import Context
from twin.changelog import EPOCH, GRAVE, OUTBOX, Tail, _take
from twin.outbox import Outbox, Output
from twin.owned import Owned, restore
from twin.packed import pack
from twin.state import create
from twin.wire import ids, topics

T0 = 1_790_000_000_000
COMMAND = ids.command_id(CAR, T0, "a")


def twin(vehicle_id=CAR, revision=1, **applied):
    made = create(vehicle_id, T0)
    made["epoch"] = 1
    made["revision"] = revision
    made["applied"] = {topic: [0, offset] for topic, offset in applied.items()}
    return made


def entry(revision, state="queued", command_id=COMMAND):
    return {
        "id": command_id, "vehicle_id": CAR, "name": "ping", "args": {}, "lane": "default",
        "state": state, "issued_at": T0, "expires_at": T0 + 60_000, "updated_at": T0 + revision,
        "by": "ann", "history": [], "attempts": [], "epoch": 1, "revision": revision,
    }  # fmt: skip


def outbox(*causes):
    """The header for causes (topic, offset, outputs)."""
    box = Outbox()
    for topic, offset, *outputs in causes:
        box.add(topic, offset, outputs)
    return (OUTBOX, box.dump())


def output(kind, key, value, revision=1):
    return Output(kind, key, None if value is None else orjson.dumps(value), revision)


def grave(epoch=1, **applied):
    """Headers of a tombstone."""
    told = {topic: [0, offset] for topic, offset in applied.items()}
    return [(EPOCH, b"%d" % epoch), (GRAVE, orjson.dumps(told))]


def tail(*records, topic=topics.TWINS, start=None):
    """Records (key, value, headers) as read."""
    read = start or Tail()
    for key, value, *headers in records:
        data = value
        if isinstance(value, dict):
            data = document.dump(value) if "reported" in value else orjson.dumps(value)
        _take(read, Message((topic, 0), read.end, key, data, headers))
    return read


def restored(twins=None, ledger=None, committed=None, held=None):
    return restore(0, 5, twins or Tail(), ledger or Tail(), committed or {}, Context(), held)


def test_the_newest_documents_and_entries_are_held():
    """Under the new epoch, with the deadlines that follow from them."""
    found = restored(
        tail((CAR, twin(revision=1)), (OTHER, twin(OTHER)), (CAR, twin(revision=2))),
        tail((f"{CAR}/{COMMAND}", entry(2)), topic=topics.LEDGER),
    )
    assert {v: t.version[2] for v, t in found.owned.twins.items()} == {CAR: 2, OTHER: 1}
    assert found.owned.book.get(COMMAND) == entry(2)
    assert (found.owned.epoch, len(found.owned.deadlines)) == (5, 1)
    assert (found.untold, found.overwritten) == ([], [])


def test_outputs_of_inputs_that_are_not_committed_are_told_again():
    """In order; those of committed inputs are not."""
    told = [output("changes", CAR, {"id": n}) for n in range(3)]
    found = restored(
        tail(
            (CAR, twin(), outbox(("telemetry", 6, told[0]), ("requests", 1, told[1]))),
            (OTHER, twin(OTHER), outbox(("telemetry", 7, told[2]))),
        ),
        committed={"telemetry": 7, "requests": 1},
    )
    assert found.untold == [(CAR, told[1]), (OTHER, told[2])]


@pytest.mark.parametrize(
    ("in_ledger", "in_outbox", "revision"), [(None, 3, 3), (2, 3, 3), (3, 3, 3), (4, 3, 4)]
)
def test_a_ledger_entry_of_an_outbox_counts_when_it_is_the_newer_one(
    in_ledger, in_outbox, revision
):
    """Of ledger and outbox either may be ahead: what was told is in the ledger, what was not is not."""
    key = f"{CAR}/{COMMAND}"
    ledger = tail((key, entry(in_ledger)), topic=topics.LEDGER) if in_ledger else Tail()
    told = output("ledger", key, entry(in_outbox, "sent"), in_outbox)
    found = restored(tail((CAR, twin(), outbox(("outcomes", 1, told)))), ledger)
    assert found.owned.book.get(COMMAND)["revision"] == revision
    assert found.untold == [(CAR, told)]


def test_a_removed_entry_is_gone_though_the_ledger_has_it():
    """The removal is in the outbox only."""
    key = f"{CAR}/{COMMAND}"
    found = restored(
        tail((CAR, twin(), outbox(("requests", 3, output("ledger", key, None, 4))))),
        tail((key, entry(3)), topic=topics.LEDGER),
    )
    assert found.owned.book.get(COMMAND) is None


def test_entries_of_vehicles_without_a_twin_are_not_held():
    """Deleted with everything that belongs to it."""
    found = restored(ledger=tail((f"{CAR}/{COMMAND}", entry(1)), topic=topics.LEDGER))
    assert len(found.owned.book) == 0


def test_a_grave_stays_until_the_inputs_are_committed_behind_it():
    """Until then no record that the deleted twin had applied may make it anew."""
    twins = tail((CAR, twin()), (CAR, None, *grave(telemetry=7, requests=2)))
    committed = {"telemetry": 8, "requests": 2}
    owned = restored(twins, committed=committed).owned
    assert owned.twins == {}
    assert owned.tombs == {CAR: 1}
    assert owned.buried(CAR, "telemetry", 7)
    assert not owned.buried(CAR, "telemetry", 8)
    assert owned.buried(CAR, "requests", 2)
    assert not owned.buried(CAR, "presence", 0)
    assert not owned.buried(OTHER, "telemetry", 7)
    owned.committed["requests"] = 3
    owned.forget_graves()
    assert (owned.graves, owned.tombs) == ({}, {})
    assert not restored(twins, committed={"telemetry": 8, "requests": 3}).owned.graves


def test_a_twin_made_again_has_no_grave():
    """What the old one had applied is in its document."""
    twins = tail((CAR, None, *grave(telemetry=7)), (CAR, {**twin(telemetry=8), "epoch": 1}))
    owned = restored(twins).owned
    assert (owned.graves, owned.tombs, set(owned.twins)) == ({}, {}, {CAR})


def test_late_writes_are_named_and_not_taken():
    """Keys of both changelogs."""
    ledger_key = f"{CAR}/{COMMAND}"
    late_twin = {**twin(revision=9), "epoch": 1}
    found = restored(
        tail((CAR, {**twin(revision=2), "epoch": 2}), (CAR, late_twin)),
        tail((ledger_key, {**entry(2), "epoch": 2}), (ledger_key, entry(9)), topic=topics.LEDGER),
    )
    assert found.owned.twins[CAR].version[2] == 2
    assert found.owned.book.get(COMMAND)["revision"] == 2
    assert sorted(found.overwritten) == sorted([CAR, ledger_key])


@pytest.mark.parametrize(
    "value",
    [
        b"\xff", b"[]", b"{}", b'{"reported":{}}', b'{"vehicle_id":"car","reported":3}',
        orjson.dumps({"vehicle_id": OTHER, "reported": {}}),
    ],
)  # fmt: skip
def test_a_document_that_cannot_be_read_stops_nothing(value):
    """It is passed over; every other twin of the partition is there."""
    found = restored(tail((CAR, value), (OTHER, twin(OTHER))))
    assert set(found.owned.twins) == {OTHER}


@pytest.mark.parametrize("value", [b"\xff", b"[]", b"{}", orjson.dumps({"id": COMMAND})])
def test_an_entry_that_cannot_be_read_stops_nothing(value):
    """It is passed over."""
    key = f"{CAR}/{COMMAND}"
    found = restored(tail((CAR, twin())), tail((key, value), topic=topics.LEDGER))
    assert len(found.owned.book) == 0


@pytest.mark.parametrize("header", [b"\xff", b"3", b'[{"at":1}]', b'[{"at":["x",1],"out":[1]}]'])
def test_an_outbox_that_cannot_be_read_stops_nothing(header):
    """Nor does a grave."""
    found = restored(tail((CAR, twin(), (OUTBOX, header)), (OTHER, None, (GRAVE, header))))
    assert (found.untold, set(found.owned.twins)) == ([], {CAR})


def test_a_partition_that_stayed_goes_on_from_what_was_held():
    """Whatever another owner wrote in between is on top of it."""
    held = Owned(0, 3, twins={CAR: pack(twin(revision=4)), OTHER: pack(twin(OTHER, revision=2))})
    held.book.put(entry(4))
    start = Tail(end=7, epoch=3, floor=3)
    twins = tail((OTHER, {**twin(OTHER, revision=3), "epoch": 4}), start=start)
    owned = restored(twins, held=held).owned
    assert {v: t.version[2] for v, t in owned.twins.items()} == {CAR: 4, OTHER: 3}
    assert owned.book.get(COMMAND) == entry(4)
