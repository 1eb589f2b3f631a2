"""Parts of the worker's shell that need no server: the book of commands, deadlines, the index."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import agents
from twin.apply import Context
from twin.book import IDEMPOTENCY_MS, Book
from twin.deadlines import CROWDED, Deadlines
from twin.effects import Deadline
from twin.view import index_of
from twin.wire import codec, ids
from twin.wire.partition import partition_of
from twin.wire.telemetry import Telemetry

T0 = 1_790_000_000_000


def command(vehicle_id="car-1", seed="a", at=T0, **more):
    command_id = ids.command_id(vehicle_id, at, seed)
    return {
        "id": command_id,
        "vehicle_id": vehicle_id,
        "state": "queued",
        "issued_at": at,
        "updated_at": at,
        "expires_at": at + 1000,
        **more,
    }


def test_the_book_finds_commands_by_id_vehicle_and_key():
    """Three ways to the same entry."""
    book = Book({})
    entry = command(idempotency_key="k")
    book.put(entry)
    assert book.get(entry["id"]) == entry
    assert book.of("car-1") == [entry]
    assert book.by_key("car-1", "k") == entry
    assert book.by_key("car-2", "k") is None
    book.remove(entry["id"])
    assert (book.get(entry["id"]), book.of("car-1"), book.by_key("car-1", "k")) == (None, [], None)


def test_a_key_counts_for_24_hours():
    """After the window the same key makes a new command, whatever has been pruned."""
    book = Book({})
    book.put(command(idempotency_key="k"))
    book.now_ms = T0 + IDEMPOTENCY_MS
    assert book.by_key("car-1", "k") is not None
    book.now_ms += 1
    assert book.by_key("car-1", "k") is None


def test_an_ended_command_goes_after_the_window_and_an_open_one_stays():
    """Memory holds what can still be asked for."""
    book = Book({})
    ended = command(seed="a", state="succeeded")
    waiting = command(seed="b", state="queued")
    book.put(ended)
    book.put(waiting)
    book.now_ms = T0 + IDEMPOTENCY_MS + 1
    book.put(command(seed="c", at=T0 + IDEMPOTENCY_MS))
    assert book.get(ended["id"]) is None
    assert book.get(waiting["id"]) == waiting


def test_a_crowded_vehicle_keeps_only_what_counts():
    """Outdated deadlines of one car do not pile up, neither in the index nor in the heap."""
    heap = Deadlines()
    for version in range(10_000):
        heap.add([Deadline(10**6 + version, "car", "desired", str(version))])
        if heap.crowded("car"):
            heap.replace("car", [Deadline(10**6 + version, "car", "desired", str(version))])
    assert len(heap) <= CROWDED + 1
    assert len(heap._heap) <= 2 * CROWDED + 2000
    last = heap.due(10**7)[-1]
    assert last["body"]["ref"] == "9999"
    heap.add([Deadline(1, "car", "presence", "1")])
    heap.forget("car")
    assert heap.due(10**9) == []
    assert len(heap) == 0


def test_the_book_forgets_others_vehicles_and_what_is_past_the_window():
    """Rebuilt from a table, it holds what this worker owns and can still be asked for."""
    mine, theirs = command("car-1", "a"), command("car-2", "b", T0 + 1)
    old = command("car-1", "c", T0 - IDEMPOTENCY_MS - 2000, state="failed")
    table = {f"{c['vehicle_id']}/{c['id']}": c for c in (mine, theirs, old)}
    book = Book(table)
    book.rebuild({"car-1"})
    assert list(book.all()) == [mine]
    assert list(table) == [f"car-1/{mine['id']}"]


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
        for record in heap.due(now):
            assert record["body"]["due"] == now
            assert record["body"]["ref"] not in told
            told[record["body"]["ref"]] = now
    assert told == earliest
    assert len(heap) == 0


def test_the_index_has_counted_fields_and_indexed_signals():
    """What lists filter by: presence, health, attributes, the catalogue's indexed signals."""
    twin = {
        "attributes": {"fleet": "berlin", "vin": "secret"},
        "presence": {"state": "online"},
        "health": {"state": "alarm"},
        "reported": {"coolant_temp": {"v": 91.5}, "throttle_pos": {"v": 0.1}},
    }
    assert index_of(twin) == {
        "presence": "online",
        "health": "alarm",
        "fleet": "berlin",
        "model": "",
        "firmware": "",
        "coolant_temp": 91.5,
    }


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
    assert agents._arrival(message) == arrival


def record(topic, vehicle_id, value, offset, partition=None):
    """A Kafka record as aiokafka gives it."""
    if partition is None:
        partition = partition_of(vehicle_id.encode(), 4)
    return SimpleNamespace(
        topic=topic, partition=partition, offset=offset, timestamp=T0 + offset,
        key=vehicle_id.encode(), value=value, headers=(),
    )  # fmt: skip


def telemetry(vehicle_id, number):
    return codec.encode_telemetry(Telemetry(vehicle_id, T0 + number, 1, number, {"speed": 1.5}))


def owner():
    return agents.Owner({}, Book({}), Deadlines(), None, None, Context(), 4)


def test_a_deletion_is_told_even_when_the_same_batch_makes_the_twin_again():
    """The batch names the deletion and the new twin, which begins at revision 1."""
    request = {
        "request_id": "r", "kind": "delete", "vehicle_id": "car-1", "at": T0, "by": "t", "body": {},
    }  # fmt: skip
    owned = owner()
    owned.decide([record("telemetry", "car-1", telemetry("car-1", n), n) for n in range(5)])
    batch = owned.decide(
        [
            record("requests", "car-1", codec.dump(request), 1),
            record("telemetry", "car-1", telemetry("car-1", 9), 9),
        ]
    )
    assert batch.deleted == {"car-1"}
    assert batch.twins["car-1"]["revision"] == 1
    assert [reply["status"] for reply in batch.replies] == [204]


def test_a_record_on_the_wrong_partition_is_set_aside():
    """A producer with another partitioner must not make a second twin under a second owner."""
    right = partition_of(b"car-1", 4)
    batch = owner().decide(
        [record("telemetry", "car-1", telemetry("car-1", 1), 1, (right + 1) % 4)]
    )
    assert batch.twins == {}
    assert [error.reason for _, error in batch.rejected] == ["wrong_partition"]


def test_a_record_seen_before_changes_nothing():
    """The same offsets again give an empty batch."""
    owned = owner()
    records = [record("telemetry", "car-1", telemetry("car-1", n), n) for n in range(5)]
    first = owned.decide(records)
    before = codec.dump(first.twins["car-1"])
    again = owned.decide(records)
    assert (again.twins, again.changes) == ({}, [])
    assert codec.dump(first.twins["car-1"]) == before
