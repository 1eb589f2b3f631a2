"""The book of commands: what it finds, what it forgets and when, and what counts as a day's commands."""

import copy

import pytest

from tests.twin_builders import CAR, T0, World, reply
from twin.apply import Context, Limits
from twin.book import IDEMPOTENCY_MS, LATE_KEPT, LATE_MS, Book
from twin.effects import Effects
from twin.packed import pack
from twin.policy import parse_policy
from twin.state import create
from twin.wire import ids

DAY = IDEMPOTENCY_MS
POLICY = """
[[rule]]
name = "limit-power-on-alarm"
health = "alarm"
command = "limit_power"
ttl_s = 600
cool_down_s = 0
"""


def command(vehicle_id="car-1", seed="a", at=T0, **more):
    command_id = ids.command_id(vehicle_id, at, seed)
    return {
        "id": command_id,
        "vehicle_id": vehicle_id,
        "by": "ann",
        "state": "queued",
        "issued_at": at,
        "updated_at": at,
        "expires_at": at + 1000,
        "attempts": [],
        **more,
    }


def owed(seed="a", at=T0, **more):
    """One that was handed out and has ended without the car's word."""
    return command(seed=seed, at=at, **{"state": "expired", "attempts": [1], **more})


def born(at=T0, vehicle_id="car-1"):
    """Twins of an owner: one, made at a time."""
    return {vehicle_id: pack(create(vehicle_id, at))}


class Ledger(Book):
    """A worker's book in a `World`."""

    @property
    def entries(self):
        return {entry["id"]: entry for entry in self.all()}

    def take(self, effects: Effects) -> None:
        for entry in effects.ledger:
            self.put(copy.deepcopy(entry))
        for removed in effects.removed:
            self.remove(removed)


class Worker(World):
    """A world that keeps its commands as a worker does."""

    def __init__(self, **limits):
        super().__init__(Context(policy=parse_policy(POLICY, "test"), limits=Limits(**limits)))
        self.ledger = Ledger({})
        self.online(1)

    def feed(self, topic, value, position, at):
        self.ledger.now_ms = at
        return super().feed(topic, value, position, at)


# --- look-ups ------------------------------------------------------------------------------------


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
    book.now_ms = T0 + DAY
    assert book.by_key("car-1", "k") is not None
    book.now_ms += 1
    assert book.by_key("car-1", "k") is None


# --- time ----------------------------------------------------------------------------------------


def test_an_ended_command_goes_after_the_window_and_an_open_one_stays():
    """Memory holds what can still be asked for, whether or not anything is written."""
    book = Book({})
    ended = command(seed="a", state="succeeded")
    waiting = command(seed="b", state="queued")
    book.put(ended)
    book.put(waiting)
    book.now_ms = T0 + DAY
    assert book.get(ended["id"]) == ended
    book.now_ms += 1
    assert book.get(ended["id"]) is None
    assert book.of("car-1") == [waiting]
    assert len(book) == 1


def test_one_of_the_future_keeps_no_other():
    """Whatever clock gave the time of an entry, those behind it go when theirs has come."""
    book = Book({})
    book.put(command(seed="b", at=T0 + 1000 * DAY, state="failed"))
    book.put(command(seed="a", state="failed"))
    book.now_ms = T0 + DAY + 1
    assert book.count("car-1") == 1


@pytest.mark.parametrize(
    ("entry", "waits"),
    [
        (owed(), True),
        (owed(state="cancelled"), True),
        (owed(attempts=[1, 2], refusals=[1]), True),
        (owed(late={"state": "running", "at": T0}), True),
        (owed(late={"state": "failed", "at": T0}), False),
        (owed(attempts=[]), False),
        (owed(attempts=[1, 2], refusals=[1, 2], state="undeliverable"), False),
        (owed(state="succeeded"), False),
    ],
)
def test_what_the_car_owes_the_end_of_is_kept_for_seven_days(entry, waits):
    """It may have it, and has not said an end; all else goes after 24 h."""
    book = Book({})
    book.put(entry)
    book.now_ms = T0 + DAY + 1
    assert (book.get(entry["id"]) is not None) is waits
    assert book.count("car-1") == 0
    book.now_ms = T0 + LATE_MS
    assert (book.get(entry["id"]) is not None) is waits
    book.now_ms += 1
    assert book.get(entry["id"]) is None
    assert len(book) == 0


def test_of_a_vehicle_the_newest_that_are_owed_are_kept():
    """Bounded; those of the last 24 h are bounded by the limit of a day, and other vehicles by theirs."""
    book = Book({})
    entries = [owed(str(n), at=T0 + n) for n in range(LATE_KEPT + 3)]
    other = owed("x", vehicle_id="car-2", id=ids.command_id("car-2", T0, "x"))
    for entry in [*entries, other]:
        book.put(entry)
    book.now_ms = T0 + DAY
    assert len(book) == LATE_KEPT + 4
    book.now_ms += 1000
    assert [book.get(entry["id"]) is not None for entry in entries] == [False] * 3 + [
        True
    ] * LATE_KEPT
    assert book.get(other["id"]) == other


def test_a_late_word_begins_the_window_anew():
    """Then it is an entry of today, and goes a day later when the word was an end."""
    book = Book({})
    entry = owed()
    book.put(entry)
    book.now_ms = T0 + 3 * DAY
    assert book.count("car-1") == 0
    said = {"state": "succeeded", "at": book.now_ms}
    book.put({**entry, "late": said, "updated_at": book.now_ms})
    assert book.count("car-1") == 1
    book.now_ms += DAY + 1
    assert (book.get(entry["id"]), book.count("car-1"), len(book)) == (None, 0, 0)


def test_a_removed_entry_is_in_no_index():
    """Also one that is kept for the car's word."""
    book = Book({})
    book.put(owed())
    book.now_ms = T0 + 2 * DAY
    assert book.count("car-1") == 0
    book.remove(owed()["id"])
    assert (book.count("car-1"), book.of("car-1"), len(book)) == (0, [], 0)
    book.now_ms = T0 + 9 * DAY
    assert book.count("car-1") == 0


# --- rebuilding ----------------------------------------------------------------------------------


def test_the_book_forgets_others_vehicles_and_what_is_past_the_window():
    """Rebuilt from a table, it holds what this worker owns and can still be asked for."""
    mine, theirs = command("car-1", "a"), command("car-2", "b", T0 + 1)
    old = command("car-1", "c", T0 - DAY - 2000, state="failed")
    late = owed("d", T0 - 6 * DAY)
    table = {f"{c['vehicle_id']}/{c['id']}": c for c in (mine, theirs, old, late)}
    book = Book(table)
    book.rebuild(born(T0 - 30 * DAY))
    assert {c["id"] for c in book.all()} == {mine["id"], late["id"]}
    assert book.count("car-1") == 1


def test_a_rebuilt_book_is_the_one_that_was_there():
    """The same entries are kept, and the same count, whether they came one by one or all at once."""
    entries = [owed(str(n), at=T0 + n * DAY // 20) for n in range(LATE_KEPT + 110)]
    entries += [command(seed=f"s{n}", at=T0 + n * DAY // 2, state="failed") for n in range(16)]
    entries.sort(key=lambda entry: entry["updated_at"])
    book = Book({})
    for entry in entries:
        book.now_ms = entry["updated_at"]
        book.put(entry)
    rebuilt = Book({f"car-1/{entry['id']}": entry for entry in entries})
    rebuilt.rebuild(born())
    assert {c["id"] for c in rebuilt.all()} == {c["id"] for c in book.all()}
    assert rebuilt.count("car-1") == book.count("car-1")
    assert rebuilt.now_ms == book.now_ms


def test_entries_of_a_former_twin_do_not_come_back():
    """What had ended long before its deletion has no tombstone; the new twin does not get it."""
    former, own = owed("a"), owed("b", T0 + 3 * DAY)
    table = {f"car-1/{c['id']}": c for c in (former, own)}
    book = Book(table)
    book.rebuild(born(T0 + 2 * DAY))
    assert list(book.all()) == [own]
    assert list(table) == [f"car-1/{own['id']}"]


# --- the limit of a day --------------------------------------------------------------------------


def test_there_is_room_for_another_command_24_hours_after_one_has_ended():
    """429 up to and with 24 h, 201 one millisecond later, though nothing was written in between."""
    world = Worker(day_commands=2)
    for _ in range(2):
        ident, _ = world.order()
        world.outcome(ident, "succeeded")
    world.now = T0 + DAY
    answer = reply(world.order()[1])
    assert (answer["status"], answer["code"]) == (429, "too_many_commands")
    world.now += 1
    assert reply(world.order()[1])["status"] == 201


def test_there_is_room_for_a_rule_24_hours_after_a_command_has_ended():
    """As for what people ask: the interlock refuses up to and with 24 h, and no longer."""
    world = Worker(day_commands=1)
    ident, _ = world.order()
    world.outcome(ident, "succeeded")
    world.now = T0 + DAY
    (change,) = [c for c in world.score("alarm", 1).changes if c["kind"] == "decision"]
    assert (change["what"]["verdict"], change["what"]["reason"]) == ("refused", "too_many_commands")
    world.now += 1
    effects = world.score("alarm", 2)
    assert [entry["name"] for entry in effects.ledger] == ["limit_power"]


def test_what_a_car_owes_for_days_takes_nobodys_place():
    """Only open commands and those of the last 24 h count."""
    world = Worker(day_commands=1)
    ident, _ = world.order(ttl_s=1)
    world.due("command", ident, T0 + 1000)
    assert world.state_of(ident) == "expired"
    world.now = T0 + 1000 + DAY
    assert reply(world.order()[1])["status"] == 429
    world.now += 1
    assert reply(world.order()[1])["status"] == 201
    assert world.state_of(ident) == "expired"


# --- late words ----------------------------------------------------------------------------------


def test_a_car_that_was_away_for_days_says_what_it_did():
    """late_outcome within seven days; afterwards it belongs on `rejected`, which says why."""
    world = Worker()
    first, _ = world.order(ttl_s=1)
    second, _ = world.order(ttl_s=1)
    for ident in (first, second):
        world.due("command", ident, T0 + 1000)
    world.now = T0 + 1000 + LATE_MS
    effects = world.outcome(first, "succeeded")
    assert [change["kind"] for change in effects.changes] == ["late_outcome"]
    world.now += 1
    effects = world.outcome(second, "succeeded")
    assert effects.rejected is not None
    assert effects.rejected.reason == "unknown_command"
    assert "7 days" in effects.rejected.detail
    assert not effects.changed


def test_a_deleted_car_takes_all_that_the_book_holds_with_it():
    """Open ones, those of a day, and those whose end is owed: each gets its tombstone."""
    world = Worker()
    late, _ = world.order(ttl_s=1)
    world.due("command", late, T0 + 1000)
    world.now = T0 + 3 * DAY
    world.telemetry(1, speed=1.0)
    opened, _ = world.order()
    effects = world.request("delete", {})
    assert set(effects.removed) == {late, opened}
    assert world.ledger.of(CAR) == []
