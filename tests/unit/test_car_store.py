"""A car's store: what is held, let go and sent again."""

import orjson
import pytest

from twin.client.car import Car
from twin.client.store import FIRST, LONGEST_SILENCE_MS, MOST, PER_S, Store
from twin.wire.errors import Malformed

NOW = 1_790_000_000_000


def filled(count, capacity=1000, **options):
    store = Store(capacity, silence_ms=1000, **options)
    for number in range(1, count + 1):
        store.keep(1, number, b"{%d}" % number, 0)
    return store


def repeat(store, now_ms):
    """The numbers that are sent again, when a silence ends at `now_ms`."""
    assert store.again(now_ms - 1, 9) == []
    return [each.sequence for each in store.again(now_ms, 99)]


def numbers(held):
    return [each.sequence for each in held]


def test_the_oldest_is_dropped_and_counted():
    """A full store keeps what is newest, and says what it let go."""
    notes = []
    store = filled(5, capacity=3, note=lambda *told: notes.append(told))
    assert (len(store), store.dropped, store.held_from(1)) == (3, 2, 3)
    assert notes == [("dropped", 1, 1), ("dropped", 1, 2)]


def test_an_ack_lets_go_of_its_session_only():
    """Up to the number, once; other sessions and later numbers stay."""
    notes = []
    store = filled(5, note=lambda *told: notes.append(told))
    store.keep(2, 1, b"{}", 0)
    assert store.covered(1, 3, 10) == 3
    assert store.covered(1, 3, 10) == store.covered(3, 9, 10) == 0
    assert (store.held_from(1), store.held_from(2), store.held_from(3), len(store)) == (
        4,
        1,
        None,
        3,
    )
    assert notes == [("covered", 1, 3)]


def test_after_a_reconnect_everything_held_is_sent_again_in_step_with_acks():
    """A few at first, twice as many with each ack, never more than there is room for."""
    store = filled(1000, capacity=1001)
    store.rewind(10)
    assert numbers(store.again(12, 3)) == [1, 2, 3]
    assert store.again(12 + 3 * 1000 // PER_S - 1, 100) == []
    now = store.next_at
    assert now == 12 + 3 * 1000 // PER_S
    assert numbers(store.again(now, 100)) == list(range(4, FIRST + 1))
    now += 1000
    store.rewind(now)
    store.keep(2, 1, b"{}", now)
    sent, window, came = 0, FIRST, []
    while sent < 1000:
        found = numbers(store.again(now, 9999))
        assert len(found) <= PER_S
        came += found
        if len(came) < min(window, 1000 - sent):
            assert store.next_at == now + len(found) * 1000 // PER_S
            now = store.next_at
            continue
        # All that may go without an ack has gone.
        assert store.again(now + 99, 9999) == []
        assert came == list(range(sent + 1, min(sent + window, 1000) + 1))
        sent, window, came = sent + len(came), min(2 * window, MOST), []
        now += 1000
        store.covered(1, sent, now)
    # What was made after the reconnect has gone out by itself.
    assert store.again(now + 1, 9999) == []
    assert len(store) == 1


def test_silence_sends_again_later_and_later():
    """Each silence repeats the oldest few; the wait doubles until there is progress."""
    store = filled(3)
    assert store.next_at == 1000
    assert repeat(store, 1000) == [1, 2, 3]
    assert store.next_at == 3000
    assert repeat(store, 3000) == [1, 2, 3]
    assert store.next_at == 7000
    store.covered(1, 1, 3500)
    assert store.next_at == 4500
    assert repeat(store, 4500) == [2, 3]
    for _ in range(20):
        repeat(store, store.next_at)
    waited = store.next_at
    repeat(store, waited)
    assert store.next_at - waited == LONGEST_SILENCE_MS
    store.covered(1, 3, waited)
    assert store.next_at is None
    assert store.again(10**15, 9) == []


def test_acks_that_were_only_late_end_the_repetition():
    """After a silence, an ack beyond what was repeated shows that the first copies arrive."""
    for lost in (False, True):
        store = filled(100)
        assert repeat(store, 1000) == [*range(1, 9)]
        store.covered(1, 8 if lost else 9, 1500)
        assert numbers(store.again(1500, 99)) == ([*range(9, 9 + 2 * FIRST)] if lost else [])
    # A new connection repeats all of it: what the broker had is gone.
    store.rewind(1500)
    store.again(1500, 3)
    store.covered(1, 20, 1600)
    assert numbers(store.again(1700, 3)) == [21, 22, 23]


def test_acks_of_a_newer_session_do_not_hide_that_an_older_one_stands_still():
    """The oldest is repeated after its silence, however often newer messages are covered."""
    store = filled(20)
    assert repeat(store, 1000) == list(range(1, FIRST + 1))
    for number in range(1, 40):
        store.keep(2, number, b"{}", 1000 + 50 * number)
        assert store.covered(2, number, 1000 + 50 * number) == 1
    assert repeat(store, 3000) == list(range(1, FIRST + 1))
    assert store.covered(1, FIRST, 3001) == FIRST
    assert numbers(store.again(store.next_at, 99)) == list(range(FIRST + 1, 21))


def test_repeating_goes_on_where_acks_and_drops_leave_it():
    """Messages that are gone meanwhile are not sent again."""
    store = filled(10, capacity=10)
    store.keep(2, 1, b"{}", 0)
    store.rewind(0)
    assert numbers(store.again(1, 3)) == [2, 3, 4]
    store.covered(1, 6, 1)
    assert numbers(store.again(200, 2)) == [7, 8]
    store.covered(1, 10, 300)
    assert [(each.session, each.sequence) for each in store.again(400, 9)] == [(2, 1)]


@pytest.mark.parametrize("wrong", [{"capacity": 0}, {"capacity": 1, "silence_ms": 0}])
def test_a_store_of_nothing_is_refused(wrong):
    """Capacity and silence begin at 1."""
    with pytest.raises(ValueError, match="from 1"):
        Store(**wrong)


def make_car(capacity=100):
    car = Car("car-1", {}, store=Store(capacity, silence_ms=100))
    car.connect(NOW)
    car.connected(NOW)
    return car


def read(publish):
    return orjson.loads(publish.payload)


def ack(car, session, upto, now=NOW):
    return car.receive("vehicles/car-1/ack", orjson.dumps({"session": session, "upto": upto}), now)


def test_telemetry_says_what_is_held_and_repeats_its_old_numbers():
    """`held_from` is of the moment of sending; session, sequence and event time are the first ones."""
    car = make_car()
    first, second = (car.telemetry(NOW + n, {"speed": n}) for n in (1, 2))
    assert read(first) == {
        "held_from": 1, "event_time": NOW + 1, "session": NOW, "sequence": 1, "speed": 1,
    }  # fmt: skip
    assert read(second)["held_from"] == 1
    assert ack(car, NOW, 1) == []
    assert read(car.telemetry(NOW + 3, {"speed": 3}))["held_from"] == 2
    car.connect(NOW + 50)
    car.connected(NOW + 50)
    again = car.again(NOW + 50, 10)
    assert [(p.session, p.sequence) for p in again] == [(NOW, 2), (NOW, 3)]
    assert read(again[0]) == {**read(second), "held_from": 2}
    assert read(car.telemetry(NOW + 51, {"speed": 1}))["held_from"] == 1


def test_samples_without_a_connection_are_of_the_session_that_was():
    """Tries to connect begin no numbers; the next connection sends all of it."""
    car = make_car()
    car.telemetry(NOW + 1, {"speed": 1})
    for at in (10, 20):
        car.connect(NOW + at)
        car.telemetry(NOW + at, {"speed": 1})
    car.connected(NOW + 30)
    assert [(p.session, p.sequence) for p in car.again(NOW + 30, 10)] == [
        (NOW, 1), (NOW, 2), (NOW, 3),
    ]  # fmt: skip
    assert (car.numbered, car.telemetry(NOW + 31, {"speed": 1}).sequence) == (NOW + 20, 1)


def test_a_car_without_a_store_knows_no_acks():
    """It subscribes to none, says nothing of holding, and refuses one that comes."""
    car = Car("car-1", {})
    assert not any(topic.endswith("/ack") for topic in car.subscriptions)
    assert make_car().subscriptions[-1] == "vehicles/car-1/ack"
    assert "held_from" not in read(car.telemetry(NOW, {"speed": 1}))
    assert car.again(NOW, 10) == []
    with pytest.raises(Malformed, match="are subscribed"):
        ack(car, 1, 1)


@pytest.mark.parametrize("wrong", [{"session": 1}, {"session": "1", "upto": 1}, {"upto": True}])
def test_an_ack_that_is_none_is_refused(wrong):
    """The numbers must be integers."""
    with pytest.raises(Malformed, match="integers"):
        make_car().receive("vehicles/car-1/ack", orjson.dumps(wrong), NOW)
