"""Parts of the worker's shell that need no server: the book of commands, deadlines, the index."""

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin import agents
from twin.book import IDEMPOTENCY_MS, Book
from twin.deadlines import Deadlines
from twin.effects import Deadline
from twin.view import index_of
from twin.wire import ids

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


def test_the_book_forgets_others_vehicles_and_what_is_past_the_window():
    """Rebuilt from a table, it holds what this worker owns and can still be asked for."""
    mine, theirs = command("car-1", "a"), command("car-2", "b", T0 + 1)
    old = command("car-1", "c", T0 - IDEMPOTENCY_MS - 2000)
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
        (None, -1, 0),
        (None, None, 0),
    ],
)
def test_a_forged_time_of_arrival_counts_as_absent(headers, timestamp, arrival):
    """A header or timestamp that no ULID can hold must not end the worker."""
    message = SimpleNamespace(headers=headers, timestamp=timestamp)
    assert agents._arrival(message) == arrival
