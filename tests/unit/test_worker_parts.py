"""Parts of the worker's shell that need no server: deadlines, batches."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.worker_fakes import CAR, T0, Kafka, Redis, Worker, record, request, run, telemetry
from twin.batch import arrival as arrival_of
from twin.deadlines import CROWDED, Deadlines
from twin.effects import Deadline
from twin.outbox import MAX_BYTES
from twin.owned import Owned
from twin.packed import unpack
from twin.wire import ids


@pytest.fixture
def worker():
    """One that has partition 0, where CAR belongs, and nothing in it."""
    made = Worker(Kafka(), Redis())
    made.owner.parts[0] = Owned(0, 1)
    return made


def at_once(*_):
    """Every deadline is due as it was asked for."""
    return 0


def test_a_crowded_vehicle_keeps_only_what_counts():
    """Outdated deadlines of one car do not pile up, neither in the index nor in the heap."""
    heap = Deadlines()
    for version in range(10_000):
        heap.add([Deadline(10**6 + version, "car", "desired", str(version))])
        if heap.crowded("car"):
            heap.replace("car", [Deadline(10**6 + version, "car", "desired", str(version))])
    assert len(heap) <= CROWDED + 1
    assert len(heap._heap) <= 2 * CROWDED + 2000
    last = heap.due(10**7, 10**7, at_once)[-1]
    assert last["body"]["ref"] == "9999"
    heap.add([Deadline(1, "car", "presence", "1")])
    heap.forget("car")
    assert heap.due(10**9, 10**9, at_once) == []
    assert len(heap) == 0


def test_a_deadline_that_was_put_off_waits_and_one_that_is_outdated_goes():
    """Asked when it comes, so that an online car makes no record with each of its messages."""
    heap = Deadlines()
    heap.add(Deadline(10, "car", "presence", ref) for ref in "abc")
    asked = {"a": None, "b": 10, "c": 25}

    def due_of(vehicle_id, of, ref):
        assert (vehicle_id, of) == ("car", "presence")
        return asked[ref]

    assert [record["body"]["ref"] for record in heap.due(20, 20, due_of)] == ["b"]
    assert heap.due(24, 24, due_of) == []
    assert [record["body"] for record in heap.due(25, 25, due_of)] == [
        {"of": "presence", "ref": "c", "due": 25}
    ]
    assert len(heap) == 0


@given(st.lists(st.tuples(st.integers(0, 50), st.sampled_from("ab"), st.sampled_from("xy"))))
def test_deadlines_come_once_in_time_and_the_earliest_wins(entries):
    """Per reference one record, at its earliest due time."""
    heap = Deadlines()
    heap.add(Deadline(due, "car", "command", ref + kind) for due, ref, kind in entries)
    earliest = {}
    for due, ref, kind in entries:
        earliest[ref + kind] = min(due, earliest.get(ref + kind, due))
    told = {}
    for now in range(51):
        for made in heap.due(now, now, at_once):
            assert made["body"]["ref"] not in told
            told[made["body"]["ref"]] = now
    assert told == earliest
    assert len(heap) == 0


@pytest.mark.parametrize(
    ("headers", "timestamp", "arrival"),
    [
        ([("ingested-at", b"1790000000000")], 5, 1_790_000_000_000),
        ([("ingested-at", b"-1")], 5, 5),
        ([("ingested-at", b"now")], 5, 5),
        ([("ingested-at", b"9" * 40)], 5, 5),
        ([("ingested-at", b"\xff")], 5, 5),
        ([], 2**60, 0),
        ([("ingested-at", None)], 5, 5),
        (None, -1, 0),
        (None, None, 0),
    ],
)
def test_a_forged_time_of_arrival_counts_as_absent(headers, timestamp, arrival):
    """A header or timestamp that no ULID can hold must not end the worker."""
    message = SimpleNamespace(headers=headers, timestamp=timestamp)
    assert arrival_of(message) == arrival


def decide(worker, *records):
    batch, end = worker.owner.decide(records, 0)
    assert end == len(records)
    return batch


def test_a_deletion_is_told_even_when_the_same_batch_makes_the_twin_again(worker):
    """The batch names the deletion and the new twin, which begins at revision 1."""
    decide(worker, *(telemetry(n) for n in range(5)))
    batch = decide(worker, request(1, "delete", {}), telemetry(9))
    assert batch.deleted == {CAR: {"telemetry": [0, 4], "requests": [0, 1]}}
    assert batch.awake[CAR]["revision"] == 1
    assert batch.awake[CAR]["applied"] == {"requests": [0, 1], "telemetry": [0, 9]}
    assert [reply["status"] for reply in batch.replies] == [204]


def test_a_deleted_twin_that_is_asked_for_again_in_the_same_batch_stays_deleted(worker):
    """The refusal must not take the place of the tombstone."""
    decide(worker, telemetry(0))
    delivery = {"id": "d", "kind": "desired", "ref": "1", "session": 1, "state": "sent", "at": T0}
    for more in (request(2, "desired", {}), record("deliveries", delivery, 0)):
        worker.owner.parts[0] = Owned(0, 1)
        decide(worker, telemetry(0))
        assert decide(worker, request(1, "delete", {}), more).awake == {CAR: None}
    worker.owner.parts[0] = Owned(0, 1)
    decide(worker, telemetry(0))
    batch = decide(worker, request(1, "delete", {}), request(2, "desired", {}))
    assert batch.deleted == {CAR: {"telemetry": [0, 0], "requests": [0, 2]}}
    assert [reply["status"] for reply in batch.replies] == [204, 404]


def test_a_refusal_without_a_twin_is_not_decided_again(worker):
    """After a kill there may be a twin, and then the answer would be another one."""
    asked = request(3, "desired", {"op": "patch", "value": {"a": 1}})
    batch = decide(worker, asked)
    assert (batch.awake, [reply["status"] for reply in batch.replies]) == ({CAR: None}, [404])
    again = decide(worker, telemetry(0), asked)
    assert again.replies == []
    assert again.awake[CAR]["desired"]["version"] == 0


def test_what_is_no_twins_and_tells_nothing_leaves_no_trace(worker):
    """A late delivery of a deleted twin needs no record of `twins`."""
    delivery = {"id": "d", "kind": "desired", "ref": "1", "session": 1, "state": "sent", "at": T0}
    assert decide(worker, record("deliveries", delivery, 0)).owners == {}


def test_a_record_on_the_wrong_partition_is_set_aside(worker):
    """A producer with another partitioner must not make a second twin under a second owner."""
    worker.owner.parts[1] = Owned(1, 1)
    batch = decide(worker, telemetry(1, partition=1))
    assert batch.owners == {}
    assert [error.reason for _, error in batch.unfit] == ["wrong_partition"]


def test_a_record_seen_before_changes_nothing(worker):
    """The same offsets again give an empty batch."""
    records = [telemetry(n) for n in range(5)]
    first = decide(worker, *records)
    assert set(first.owners) == {CAR}
    before = worker.owner.parts[0].twins[CAR].dump(CAR)
    again = decide(worker, *records)
    assert (again.owners, again.outboxes) == ({}, {})
    assert worker.owner.parts[0].twins[CAR].dump(CAR) == before


def test_a_batch_is_cut_when_a_vehicles_outbox_is_full(worker):
    """So that no record of `twins` is larger than Kafka takes; the rest is decided next."""
    decide(worker, telemetry(0))
    value = {f"k{n}": "x" * 1000 for n in range(20)}
    records = [request(n, "desired", {"op": "put", "value": {**value, "n": n}}) for n in range(60)]
    ends, end = [], 0
    while end < len(records):
        batch, end = worker.owner.decide(records, end)
        ends.append(end)
        (outbox,) = batch.outboxes.values()
        assert len(outbox.dump()) < MAX_BYTES + 100_000
    assert len(ends) > 2
    assert unpack(worker.owner.parts[0].twins[CAR], CAR)["desired"]["version"] == 60


def test_what_is_durable_waits_for_what_is_decided(worker):
    """While a bad record of a batch is being set aside, its twins are ahead of the changelog."""

    async def test():
        worker.owner.parts.clear()
        await worker.restore()
        await worker.take(telemetry(0))
        worker.producer.frozen = True
        bad = record("telemetry", b"x", 2)
        taking = asyncio.create_task(worker.take(telemetry(1), bad))
        await asyncio.sleep(0.02)
        assert worker.owner.parts[0].twins[CAR].version[2] == 2
        durable = asyncio.create_task(worker.owner.durable())
        await asyncio.sleep(0.02)
        assert not durable.done()
        worker.producer.frozen = False
        await durable
        assert worker.kafka.newest("twins", CAR)["revision"] == 2
        assert await taking

    run(test)


def test_an_answer_about_a_command_is_what_is_stored_of_it(worker):
    """Sent, sent again, and cancelled: body, ledger entry and outbox have epoch and revision alike."""
    asked = {"id": ids.command_id(CAR, T0, "x"), "name": "ping", "args": {}, "lane": "default"}
    decide(worker, telemetry(0))
    for offset, kind, body in (
        (1, "command", {**asked, "ttl_s": 60}),
        (2, "command", {**asked, "ttl_s": 60}),
        (3, "cancel", {"command_id": asked["id"]}),
    ):
        batch = decide(worker, request(offset, kind, body))
        (reply,), entry = batch.replies, worker.owner.parts[0].book.get(asked["id"])
        assert reply["body"] == entry
        assert (entry["epoch"], entry["revision"]) == (1, reply["revision"])
        told = {
            output.kind: orjson.loads(output.value)
            for _, _, outputs in batch.outboxes[CAR].causes
            for output in outputs
        }
        assert told["replies"]["body"] == told.get("ledger", entry) == entry
