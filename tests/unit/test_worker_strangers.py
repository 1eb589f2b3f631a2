"""Records in the changelogs that no owner wrote: looked at once, counted, passed over, written over."""

import asyncio
from types import SimpleNamespace

import orjson
import pytest
from faust.types import TP
from structlog.testing import capture_logs

from tests.worker_fakes import (
    CAR,
    OTHER,
    T0,
    Kafka,
    Message,
    Redis,
    Worker,
    entry,
    record,
    run,
    telemetry,
)
from twin import document
from twin.app import INPUTS
from twin.apply import Context
from twin.changelog import AHEAD_S, EPOCH, FENCE, MAX_EPOCH, ChangelogUnreadable, Tail, _take
from twin.kit import metrics
from twin.owned import Owned, restore
from twin.packed import pack
from twin.state import create
from twin.view import FormerOwner
from twin.wire import ids, topics

TWINS, LEDGER = (topics.TWINS, 0), (topics.LEDGER, 0)
COMMAND = ids.command_id(CAR, T0, "a")
KEY = f"{CAR}/{COMMAND}"
NOW_S = T0 // 1000


def twin(vehicle_id=CAR, **changed):
    return document.dump({**create(vehicle_id, T0), "epoch": 1, "revision": 5, **changed})


def strange():
    """How many were counted so far."""
    return metrics.TWIN_STRANGE._value.get()


@pytest.fixture
def kafka():
    """At T0, so that times of records and epochs fit."""
    made = Kafka()
    made.now_ms = lambda: T0
    return made


@pytest.fixture
def store():
    return Redis()


def watched(worker):
    """The places that the worker's reader reads from now on."""
    read, places = worker.reader.read, []

    def reading(tails, wanted):
        places.extend(tails)
        return read(tails, wanted)

    worker.reader.read = reading
    return places


def test_records_without_a_key_are_looked_at_once(kafka, store):
    """Nothing of ours can replace them: they are counted, said in one line, and not read again."""

    async def test():
        worker, before = Worker(kafka, store), strange()
        await worker.restore()
        assert await worker.take(telemetry(0))
        places = watched(worker)
        for key in (None, None, b"\xff"):
            kafka.append(TWINS, key, b"x")
        kafka.append(LEDGER, None, b"x")
        with capture_logs() as lines:
            for _ in range(3):
                await worker.takeover.watch(lambda: True)
            assert await worker.take(telemetry(1))
            await worker.takeover.watch(lambda: True)
        assert places == [TWINS, LEDGER]
        assert [(line["place"], line["records"]) for line in lines] == [(TWINS, 3), (LEDGER, 1)]
        assert strange() == before + 4
        kafka.append(TWINS, None, b"x")
        await worker.takeover.watch(lambda: True)
        assert places == [TWINS, LEDGER, TWINS]
        assert not worker.faults

    run(test)


def test_a_record_under_a_key_of_ours_is_written_over_once(kafka, store):
    """And is not looked at again when Kafka has what replaces it."""

    async def test():
        worker = Worker(kafka, store)
        await worker.restore()
        assert await worker.take(telemetry(0))
        places = watched(worker)
        kafka.append(TWINS, CAR, b"{}")
        for _ in range(2):
            await worker.takeover.watch(lambda: True)
        assert places == [TWINS]
        assert kafka.newest(topics.TWINS, CAR)["epoch"] == 1
        length = len(kafka.logs[TWINS])
        assert await worker.take(telemetry(1))
        assert len(kafka.logs[TWINS]) == length + 1
        assert not worker.faults

    run(test)


def test_what_is_seen_while_a_write_is_on_its_way_is_not_taken_as_known(kafka, store):
    """Where the write will land is not known yet, so what is in front of it is looked at again."""

    async def test():
        worker = Worker(kafka, store)
        await worker.restore()
        assert await worker.take(telemetry(0))
        worker.producer.frozen = True
        writing = asyncio.create_task(worker.take(telemetry(1)))
        await asyncio.sleep(0.01)
        kafka.append(TWINS, CAR, b"{}")
        for _ in range(2):
            kafka.append(TWINS, None, b"x")
        places = watched(worker)
        await worker.takeover.watch(lambda: True)
        worker.producer.frozen = False
        assert await writing
        assert places == [TWINS, TWINS]
        assert await worker.take(telemetry(2))
        await worker.takeover.watch(lambda: True)
        assert places == [TWINS, TWINS]
        assert not worker.faults
        assert kafka.newest(topics.TWINS, CAR)["reported"]["speed"]["v"] == 2.5

    run(test)


UNFIT = [
    {"progress": "far"},
    {"late": {}},
    {"late": {"state": "sent", "at": T0}},
    {"history": [1]},
    {"history": [{"state": "lost", "at": T0}]},
    {"history": [{"state": "sent"}]},
    {"cause": 3},
    {"body_hash": 3},
    {"updated_at": "now"},
    {"state": "lost"},
    {"attempts": ["a"]},
    {"args": []},
    {"vehicle_id": OTHER},
    {"id": "a"},
    {"id": ids.command_id(OTHER, T0, "a")},
]


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_entry_that_is_not_whole_is_passed_over_and_the_one_before_it_stays(unfit):
    """None of its fields is taken, nor does it remove what was held under its key."""
    tail = Tail()
    _take(tail, Message(LEDGER, 0, KEY, orjson.dumps({"epoch": 1} | entry(**unfit)), ()))
    held = Owned(0, 1, twins={CAR: pack({**create(CAR, T0), "epoch": 1})})
    held.book.put(entry())
    found = restore(0, 2, Tail(), tail, {}, Context(), held)
    assert found.strange == [KEY]
    assert list(found.owned.book.all()) == [entry()]


@pytest.mark.parametrize("unfit", UNFIT)
def test_an_entry_that_is_not_whole_ends_nothing(kafka, store, unfit):
    """It is counted and said; what the car says of it finds no command; the next owner starts as well."""

    async def test():
        kafka.append(TWINS, CAR, twin(commands={"open": [COMMAND]}))
        kafka.append(LEDGER, KEY, orjson.dumps({"epoch": 1} | entry(**unfit)))
        for second in (2, 3):
            worker, before = Worker(kafka, store), strange()
            with capture_logs() as lines:
                await worker.restore(second=second)
            assert [line["key"] for line in lines if line["event"] == "no ledger entry"] == [KEY]
            assert strange() == before + 1
            told = {"command_id": COMMAND, "state": "running", "at": T0, "progress": 0.5}
            assert await worker.take(record(topics.OUTCOMES, told, second), telemetry(second))
            assert not worker.faults
            assert not worker.owner.parts[0].book.commands

    run(test)


FAR = [NOW_S + AHEAD_S + 1, NOW_S * 1000, 2**47, MAX_EPOCH - 1, MAX_EPOCH, 2**63 - 1]


def forge(kafka, epoch, key=CAR):
    """A stranger's document, entry, tombstones and fence."""
    kafka.append(TWINS, key, twin(key, epoch=epoch, revision=99))
    kafka.append(TWINS, OTHER, None, [(EPOCH, b"%d" % epoch)])
    kafka.append(LEDGER, KEY, orjson.dumps({**entry(state="failed"), "epoch": epoch}))
    kafka.append(TWINS, FENCE, None, [(EPOCH, b"%d" % epoch)])


@pytest.mark.parametrize("epoch", FAR)
def test_an_epoch_far_ahead_of_its_record_is_a_strangers(kafka, store, epoch):
    """Owners follow on each other as if it were not there, and write over what it says."""

    async def test():
        for car in (CAR, OTHER):
            kafka.append(TWINS, car, twin(car))
        kafka.append(LEDGER, KEY, orjson.dumps(entry()))
        forge(kafka, epoch)
        for second in (NOW_S, NOW_S, NOW_S + 7):
            worker, before = Worker(kafka, store), strange()
            await worker.restore(second=second)
            owned = worker.owner.parts[0]
            assert NOW_S <= owned.epoch <= NOW_S + 7
            assert owned.twins[CAR].version[2] == owned.twins[OTHER].version[2] == 5
            assert owned.book.get(COMMAND)["state"] == "queued"
            assert strange() == before + 4
            for key in (CAR, OTHER):
                newest = kafka.newest(topics.TWINS, key)
                assert (newest["epoch"], newest["revision"]) == (NOW_S, 5)
            assert kafka.newest(topics.LEDGER, KEY)["state"] == "queued"
        assert await worker.take(telemetry(0))
        assert not worker.faults

    run(test)


@pytest.mark.parametrize("epoch", FAR)
def test_an_owner_does_not_end_over_an_epoch_far_ahead(kafka, store, epoch):
    """Nobody has taken its partition over: it writes over what the stranger wrote, and goes on."""

    async def test():
        worker = Worker(kafka, store)
        await worker.restore(second=NOW_S)
        assert await worker.take(telemetry(0), telemetry(0, OTHER))
        forge(kafka, epoch)
        await worker.takeover.watch(lambda: True)
        for car in (CAR, OTHER):
            assert kafka.newest(topics.TWINS, car)["epoch"] == NOW_S
        assert await worker.take(telemetry(1))
        assert not worker.faults

    run(test)


def test_no_owner_writes_under_an_epoch_that_readers_would_not_believe(kafka, store, monkeypatch):
    """Behind one that is a day ahead the next owner waits for the clock; the one after it believes it."""
    monkeypatch.setattr("twin.restoring._ROUND_S", 0)

    async def test():
        seconds = iter(range(NOW_S - 5, NOW_S + 100))
        kafka.append(TWINS, CAR, twin(epoch=NOW_S + AHEAD_S, revision=6))
        worker = Worker(kafka, store)
        kafka.now_ms = lambda: 1000 * next(seconds)
        worker.takeover._restoring._clock = SimpleNamespace(now_ms=kafka.now_ms)
        with capture_logs() as lines:
            await worker.takeover.restore({TP(t, 0): 0 for t in INPUTS}, 1, lambda: True)
        assert [line["epoch"] for line in lines if "clock" in line["event"]] == [NOW_S + AHEAD_S]
        assert worker.owner.parts[0].epoch == NOW_S + AHEAD_S + 1
        assert await worker.take(telemetry(0))
        after = Worker(kafka, store)
        await after.restore({"telemetry": 1}, second=NOW_S + 60)
        assert after.owner.parts[0].twins[CAR].version[2] == 7

    run(test)


def test_whoever_waits_for_the_clock_stops_when_the_partition_goes(kafka, store, monkeypatch):
    """It has written nothing by then, and holds nothing."""
    monkeypatch.setattr("twin.restoring._ROUND_S", 0)

    async def test():
        kafka.append(TWINS, CAR, twin(epoch=NOW_S))
        worker, wanted = Worker(kafka, store), iter([True] * 5)
        worker.takeover._restoring._clock = SimpleNamespace(now_ms=lambda: 1000)
        await worker.takeover.restore({TP(t, 0): 0 for t in INPUTS}, 1, lambda: next(wanted, False))
        assert worker.owner.parts == {}
        assert len(kafka.logs[TWINS]) == 1

    run(test)


def test_an_owner_whose_clock_is_set_back_by_more_than_a_day_ends(kafka, store):
    """What it writes from then on would not count when it is read back."""

    async def test():
        worker = Worker(kafka, store)
        await worker.restore(second=NOW_S)
        for second in (NOW_S - AHEAD_S, NOW_S - AHEAD_S - 1):
            clock = SimpleNamespace(now_ms=lambda second=second: 1000 * second)
            worker.takeover._restoring._clock = clock
            if second == NOW_S - AHEAD_S:
                await worker.takeover.watch(lambda: True)
            else:
                with pytest.raises(ChangelogUnreadable, match="clock was set back"):
                    await worker.takeover.watch(lambda: True)

    run(test)


def test_of_two_that_follow_on_the_same_epoch_one_ends(kafka, store):
    """The epoch is ahead of the clock, so time does not tell them apart; the later fence does."""

    async def test():
        kafka.append(TWINS, CAR, twin(epoch=NOW_S + 60))
        late, owner = Worker(kafka, store), Worker(kafka, store)
        late.producer.frozen = True
        taking = asyncio.create_task(late.restore(second=NOW_S))
        await asyncio.sleep(0.05)
        await owner.restore(second=NOW_S + 6)
        late.producer.frozen = False
        with pytest.raises(FormerOwner):
            await taking
        assert late.owner.parts == {}
        await owner.takeover.watch(lambda: True)
        assert await owner.take(telemetry(0))
        assert owner.owner.parts[0].epoch == NOW_S + 61
        assert not owner.faults

    run(test)
