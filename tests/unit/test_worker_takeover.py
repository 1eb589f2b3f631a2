"""Law 5 step by step: owners that freeze, wake, follow on each other and die, on Kafka in memory."""

import asyncio
import gc
import itertools
from types import SimpleNamespace

import orjson
import pytest
from faust.types import TP
from structlog.testing import capture_logs

from tests.worker_fakes import (
    CAR,
    OTHER,
    PARTITIONS,
    T0,
    Kafka,
    Redis,
    Worker,
    cars,
    entry,
    record,
    request,
    run,
    telemetry,
)
from twin import document
from twin.app import INPUTS
from twin.changelog import (
    CHANGELOGS,
    EPOCH,
    FENCE,
    OUTBOX,
    Tail,
)
from twin.copy import Copy
from twin.delivery import Ticket
from twin.packed import unpack
from twin.restoring import GROUP
from twin.state import create
from twin.view import FormerOwner
from twin.wire import ids, topics

PLACE = (topics.TWINS, 0)


class Killed(Exception):
    """The worker is not used any further."""


def die(*_):
    """In place of a step: the process has ended before it."""
    raise Killed


@pytest.fixture
def kafka():
    return Kafka()


@pytest.fixture
def store():
    return Redis()


def test_an_owner_begins_with_a_fence_under_an_epoch_above_all(kafka, store):
    """Above what the changelogs hold, and not below the time."""

    async def test():
        first, second, third = (Worker(kafka, store) for _ in range(3))
        await first.restore(second=3)
        assert await first.take(telemetry(0))
        await second.restore(second=2)
        await third.restore(second=9)
        fences = [message for message in kafka.logs[PLACE] if message.key() == FENCE.encode()]
        assert [dict(message.headers())[EPOCH] for message in fences] == [b"3", b"4", b"9"]
        assert [w.owner.parts[0].epoch for w in (first, second, third)] == [3, 4, 9]
        assert third.owner.parts[0].twins[CAR].version[2] == 1
        assert store.owners == {0: 9}

    run(test)


def test_a_former_owner_that_writes_behind_the_fence_tells_nothing(kafka, store):
    """Though the new one has written nothing else: the gap in its offsets says that it is not alone."""

    async def test():
        former, owner = Worker(kafka, store), Worker(kafka, store)
        await former.restore()
        assert await former.take(telemetry(0))
        former.producer.frozen = True
        working = asyncio.create_task(former.take(request(0, "attributes", {"value": {"a": "b"}})))
        await asyncio.sleep(0.05)
        await owner.restore({"telemetry": 1}, second=2)
        former.producer.frozen = False
        assert not await working
        assert [type(fault) for fault in former.faults] == [FormerOwner]
        assert [change["kind"] for change in kafka.values(topics.CHANGES)] == ["created"]
        assert store.replies == {}
        await owner.takeover.watch(lambda: True)
        assert kafka.newest(topics.TWINS, CAR)["epoch"] == 2
        assert kafka.newest(topics.TWINS, CAR)["attributes"] == {}

    run(test)


def test_a_former_owner_that_writes_while_the_new_one_reads_is_heard(kafka, store):
    """In front of the fence it counts: the new owner has it, and tells it again."""

    async def test():
        former, owner = Worker(kafka, store), Worker(kafka, store)
        await former.restore()
        assert await former.take(telemetry(0))
        told = asyncio.Event()

        def write_late() -> None:
            owner.reader.before_end = lambda: None
            asyncio.run_coroutine_threadsafe(late(), loop).result(5)

        async def late() -> None:
            assert await former.take(request(0, "attributes", {"value": {"a": "b"}}))
            told.set()

        loop = asyncio.get_running_loop()
        owner.reader.before_end = write_late
        await owner.restore({"telemetry": 1}, second=2)
        assert told.is_set()
        assert not former.faults
        assert unpack(owner.owner.parts[0].twins[CAR], CAR)["attributes"] == {"a": "b"}
        again = [orjson.dumps(c) for c in kafka.values(topics.CHANGES) if c["kind"] == "attributes"]
        assert len(again) == 2
        assert len(set(again)) == 1

    run(test)


def test_what_was_durable_and_not_told_is_told_by_the_next_owner(kafka, store):
    """Changes, downlinks and replies as they were; ledger entries as they are, under the new epoch."""

    async def test():
        dying, owner = Worker(kafka, store), Worker(kafka, store)
        await dying.restore()
        online = {"state": "online", "session": 1, "at": 1, "shard": 0}
        await dying.take(telemetry(0), record(topics.PRESENCE, online, 0))
        command = {"id": ids.command_id(CAR, 1, "x"), "name": "ping", "args": {}, "ttl_s": 60}
        dying.owner._write_outputs = die  # type: ignore[method-assign]
        assert not await dying.take(request(0, "command", {**command, "lane": "default"}))
        assert kafka.values(topics.LEDGER) == kafka.values(topics.DOWNLINK) == []
        assert store.replies == {}
        await owner.restore({"telemetry": 1, "presence": 1}, second=2)
        (entry,) = kafka.values(topics.LEDGER)
        assert (entry["id"], entry["epoch"], entry["revision"]) == (command["id"], 2, 3)
        assert [d["ref"] for d in kafka.values(topics.DOWNLINK)] == [command["id"]]
        assert store.replies["r0"]["status"] == 201
        assert not await _repeated(owner, request(0, "command", command), topics.CHANGES)

    run(test)


def test_a_deleted_twins_command_does_not_come_back_whatever_is_committed_of_which_topic(
    kafka, store
):
    """An older word on it may be untold when its end is told: an owner before had not read so far."""

    async def test():
        first, second, third = (Worker(kafka, store) for _ in range(3))
        command = {"id": ids.command_id(CAR, 1, "x"), "name": "ping", "args": {}, "ttl_s": 60}
        online = {"state": "online", "session": 1, "at": 1, "shard": 0}
        again = (
            telemetry(0),
            request(0, "command", {**command, "lane": "default"}),
            request(1, "delete", {}),
            telemetry(1),
        )
        await first.restore()
        assert await first.take(*again[:2], record(topics.PRESENCE, online, 0), *again[2:])
        await second.restore(second=2)
        assert await second.take(*again)
        await third.restore({"telemetry": 2, "requests": 2}, second=3)
        for worker in (first, second, third):
            assert worker.owner.parts[0].twins.keys() == {CAR}
            assert worker.owner.parts[0].book.of(CAR) == []
        assert kafka.newest(topics.LEDGER, f"{CAR}/{command['id']}") is None

    run(test)


async def _repeated(worker, message, topic):
    """What taking a record that was applied before adds to a topic."""
    before = len(worker.kafka.values(topic))
    assert await worker.take(message)
    return worker.kafka.values(topic)[before:]


@pytest.mark.parametrize("topic", [topics.TWINS, topics.LEDGER])
def test_a_late_write_is_written_over_with_what_holds(kafka, store, topic):
    """A document, a deleted twin, an entry, one that never was."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore(second=5)
        await owner.take(telemetry(0), telemetry(1, OTHER), request(0, "delete", {}, OTHER))
        command = {"id": ids.command_id(CAR, 1, "x"), "name": "ping", "args": {}, "ttl_s": 60}
        await owner.take(request(1, "command", {**command, "lane": "default"}))
        keys = {
            topics.TWINS: (CAR, OTHER, "never"),
            topics.LEDGER: (f"{CAR}/{command['id']}", f"{CAR}/{CAR}.never", "never/never"),
        }[topic]
        before = {key: kafka.newest(topic, key) for key in keys}
        for key in keys:
            kafka.append((topic, 0), key, orjson.dumps({"epoch": 4, "revision": 99}))
        await owner.takeover.watch(lambda: True)
        assert {key: kafka.newest(topic, key) for key in keys} == before
        assert owner.owner.parts[0].twins[CAR].version[2] == 2
        length = len(kafka.logs[topic, 0])
        await owner.takeover.watch(lambda: True)
        assert len(kafka.logs[topic, 0]) == length

    run(test)


def test_a_write_that_comes_while_a_late_one_is_written_over_is_seen_as_well(kafka, store):
    """A former owner's batch may arrive in two parts."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore(second=5)
        await owner.take(telemetry(0), telemetry(1, OTHER))
        kafka.append(PLACE, OTHER, orjson.dumps({"epoch": 4}))
        late = iter([CAR])

        def arrive() -> None:
            for key in late:
                kafka.append(PLACE, key, orjson.dumps({"epoch": 4}))

        owner.reader.before_end = arrive
        await owner.take(telemetry(2))
        assert [kafka.newest(topics.TWINS, car)["epoch"] for car in (CAR, OTHER)] == [5, 5]
        assert not owner.faults

    run(test)


def test_an_owner_finds_a_newer_one_in_its_changelog_and_ends(kafka, store):
    """It raises; nothing of the batch was told."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore()
        await owner.take(telemetry(0))
        kafka.append(PLACE, FENCE, None, [(EPOCH, b"2")])
        with pytest.raises(FormerOwner, match="epoch 2, ours is 1"):
            await owner.takeover.examine(Ticket(foreign=[(PLACE, 2, 3)]))
        assert not await owner.take(request(0, "attributes", {"value": {}}))
        assert [type(fault) for fault in owner.faults] == [FormerOwner]

    run(test)


def test_in_a_rebalance_nobody_is_judged(kafka, store):
    """The partition may be another worker's by right, and be gone from here any moment."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore()
        kafka.append(PLACE, FENCE, None, [(EPOCH, b"2")])
        await owner.takeover.watch(lambda: False)

        def lose() -> tuple[int, int]:
            owner.owner.release([0])
            return 0, 2

        owner.reader.bounds = lambda _: lose()  # type: ignore[method-assign]
        await owner.takeover.watch(lambda: True)

    run(test)


def test_a_restore_that_is_not_wanted_any_more_changes_nothing(kafka, store):
    """The next one begins where this one did, whether it had fenced or not."""

    async def test():
        owner, other = Worker(kafka, store), Worker(kafka, store)
        await owner.restore()
        await owner.take(telemetry(0))
        await other.restore({"telemetry": 1}, second=2)
        await other.take(telemetry(1), telemetry(2, OTHER))
        for asked in range(4):
            wanted = iter([True] * asked + [False] * 9)
            await owner.takeover.restore(_inputs(telemetry=3), 3, lambda w=wanted: next(w))
        await owner.restore({"telemetry": 3}, second=4)
        twins = owner.owner.parts[0].twins
        assert {car: twins[car].version[2] for car in twins} == {CAR: 2, OTHER: 1}
        assert await owner.take(telemetry(3))
        assert not owner.faults

    run(test)


def _inputs(partitions=(0,), **committed):
    return {TP(topic, p): committed.get(topic, 0) for topic in INPUTS for p in partitions}


def _fill(kafka, epoch=1):
    """A twin and an entry in each partition; the cars."""
    found = [cars(1, partition)[0] for partition in range(PARTITIONS)]
    for partition, car in enumerate(found):
        made = {**create(car, T0), "epoch": epoch, "revision": 5}
        kafka.append((topics.TWINS, partition), car, document.dump(made))
        kafka.append((topics.LEDGER, partition), *_entry(car, epoch))
    return found


async def _restore_all(worker, generation=1, asked=None):
    """Take all partitions over; it is wanted the first `asked` times that it is asked, or always."""
    answers = itertools.repeat(True) if asked is None else iter([True] * asked + [False] * 9)
    places = _inputs(range(PARTITIONS))
    await worker.takeover.restore(places, generation, lambda: next(answers))


def _held(worker):
    """The one car of each partition."""
    return [car for p in range(PARTITIONS) for (car,) in [list(worker.owner.parts[p].twins)]]


def _entry(car, epoch, seed="a", **changed):
    """Key and value of an entry of the ledger."""
    made = entry(car, seed, epoch=epoch, **changed)
    return f"{car}/{made['id']}", orjson.dumps(made)


def test_partitions_are_read_and_built_some_at_a_time(kafka, store):
    """Of what was read no more is there at a time than a group's; in the end all are held."""

    async def test():
        owner = Worker(kafka, store)
        found = _fill(kafka)
        read, alive = owner.reader.read, []

        def watched(tails, wanted):
            alive.append(sum(isinstance(thing, Tail) for thing in gc.get_objects()))
            assert len({partition for _, partition in tails}) <= GROUP < PARTITIONS
            return read(tails, wanted)

        owner.reader.read = watched
        await _restore_all(owner)
        assert max(alive) == GROUP * 2
        assert _held(owner) == found
        assert [len(owner.owner.parts[p].book) for p in range(PARTITIONS)] == [1] * PARTITIONS
        assert set(store.owners) == set(range(PARTITIONS))

    run(test)


@pytest.mark.parametrize("asked", range(8))
def test_a_restore_that_ends_between_two_groups_changes_nothing(kafka, store, tmp_path, asked):
    """What it read is read again; its copy is one of nothing, whatever it had written to it."""

    async def test():
        copy = Copy(tmp_path)
        owner = Worker(kafka, store, copy)
        found = _fill(kafka)
        await _restore_all(owner, 1, asked)
        if asked < 6:
            assert owner.owner.parts == {}
            assert store.owners == {}
            for place in ((topic, p) for topic in CHANGELOGS for p in range(PARTITIONS)):
                assert copy.tail(place, 0, 100) is None
        await _restore_all(owner, 2)
        assert _held(owner) == found
        for partition, car in enumerate(found):
            tail = copy.tail((topics.TWINS, partition), 0, 100)
            assert (list(tail.newest), tail.end) == (
                [car],
                len(kafka.logs[topics.TWINS, partition]),
            )
        copy.close()

    run(test)


def test_a_copy_that_breaks_in_the_middle_is_made_anew_whole(kafka, store, tmp_path):
    """Also of what this worker held all along: the new copy must not have only what came since."""

    async def test():
        found = _fill(kafka)
        copy = Copy(tmp_path)
        first = Worker(kafka, store, copy)
        await _restore_all(first)
        copy.close()
        copy = Copy(tmp_path)
        copy._db[b"p" + b"t" + (3).to_bytes(4, "big")] = b"broken"
        second = Worker(kafka, store, copy)
        await second.takeover.restore(_inputs([0, 1]), 1, lambda: True)
        assert set(second.owner.parts) == {0, 1}
        # Not wanted any more when the new copy has nothing yet: then nothing is held either.
        await _restore_all(second, 2, asked=4)
        assert second.owner.parts == {}
        await _restore_all(second, 2)
        assert _held(second) == found
        for partition, car in enumerate(found):
            assert list(copy.tail((topics.TWINS, partition), 0, 100).newest) == [car]
            assert len(copy.tail((topics.LEDGER, partition), 0, 100).newest) == 1
        copy.close()

    run(test)


def test_what_the_copy_has_is_not_written_to_it_again(kafka, store, tmp_path):
    """A warm restart writes what is new, and the places."""

    async def test():
        found = _fill(kafka)
        copy = Copy(tmp_path)
        worker = Worker(kafka, store, copy)
        await _restore_all(worker)
        epoch = worker.owner.parts[0].epoch
        kafka.append(PLACE, found[0], document.dump({**create(found[0], T0), "epoch": epoch}))
        write, written = copy.write, []

        def spy(records, places):
            records = list(records)
            written.extend(key for _, key, _ in records)
            write(records, places)

        copy.write = spy
        again = Worker(kafka, store, copy)
        await _restore_all(again, 2)
        assert written == [found[0]]
        assert _held(again) == found
        copy.close()

    run(test)


def test_a_restart_from_a_copy_does_not_take_a_late_write_for_its_own(kafka, store, tmp_path):
    """The copy's place is the end of a calm partition, and there a former owner's record lands."""
    other = cars(1, 1)[0]

    def inputs(**committed):
        return {**_inputs([0], **committed), **_inputs([1], telemetry=committed.get("other", 0))}

    async def restored(worker, second, places):
        worker.takeover._restoring._clock = SimpleNamespace(now_ms=lambda: 1000 * second)
        await worker.takeover.restore(places, 1, lambda: True)

    async def test():
        former, copy = Worker(kafka, store), Copy(tmp_path)
        await restored(former, 100, inputs())
        await former.take(request(0, "attributes", {"value": {"fleet": "old"}}))
        former.producer.frozen = True
        late = request(1, "attributes", {"value": {"fleet": "late"}})
        writing = asyncio.create_task(former.take(late))
        await asyncio.sleep(0)
        owner = Worker(kafka, store, copy)
        await restored(owner, 200, inputs(requests=1))
        new = request(2, "attributes", {"value": {"fleet": "new"}})
        assert await owner.take(late, new)
        owner.commit(requests=3)
        # The place of partition 0 is written with a batch of another.
        assert await owner.take(telemetry(0, other))
        kept = copy.tail(PLACE, 0, 100)
        assert (kept.end, kept.floor) == (len(kafka.logs[PLACE]), 200)
        former.producer.frozen = False
        await writing
        again = Worker(kafka, store, copy)
        await restored(again, 300, inputs(requests=3, other=1))
        twin = unpack(again.owner.parts[0].twins[CAR], CAR)
        assert twin["attributes"] == {"fleet": "new"}
        assert kafka.newest(topics.TWINS, CAR)["attributes"] == {"fleet": "new"}
        copy.close()

    run(test)


@pytest.mark.parametrize("unfit", [{"updated_at": "now"}, {"state": ["queued"]}, {"fleet": {}}])
def test_an_entry_that_no_owner_wrote_though_it_has_an_epoch_is_left_out(kafka, store, unfit):
    """The twin is there, with its other entry; and what cannot be told is not."""

    async def test():
        car = _fill(kafka)[0]
        kafka.append((topics.LEDGER, 0), *_entry(car, 3, "b", **unfit))
        for key, value in ((_entry(car, 1)[0], {"id": 3}), (car, {}), (3, None)):
            told = [["ledger", key, 9, value], ["replies", "r", 9, {}], ["x", "x", 9, {}]]
            box = orjson.dumps([{"at": ["telemetry", 0], "out": told}])
            made = document.dump({**create(car, T0), "epoch": 3, "revision": 6})
            kafka.append(PLACE, car, made, [(OUTBOX, box)])
        worker = Worker(kafka, store)
        with capture_logs() as lines:
            await worker.restore()
        said = [line["event"] for line in lines if line["log_level"] == "error"]
        assert said == [
            "a changelog holds what no owner writes",
            "no ledger entry",
            *["no outbox"] * 3,
        ]
        assert worker.owner.parts[0].twins[car].version[2] == 6
        assert [entry["id"] for entry in worker.owner.parts[0].book.all()] == [
            ids.command_id(car, T0, "a")
        ]
        assert not kafka.values(topics.CHANGES)
        assert not kafka.values(topics.DOWNLINK)
        assert await worker.take(telemetry(0, car))
        assert not worker.faults

    run(test)


def test_a_copy_of_another_kafka_is_not_used(kafka, store, tmp_path):
    """Though its offsets would fit."""

    async def test():
        _fill(kafka)
        copy = Copy(tmp_path)
        await Worker(kafka, store, copy).restore()
        copy.close()
        other = Kafka("other")
        (car,) = cars(2)[1:]
        for _ in range(5):
            other.append(PLACE, car, document.dump({**create(car, T0), "epoch": 1}))
        copy = Copy(tmp_path)
        worker = Worker(other, Redis(), copy)
        with capture_logs() as lines:
            await worker.restore()
        assert set(worker.owner.parts[0].twins) == {car}
        (line,) = [line for line in lines if line["log_level"] == "warning"]
        assert "another Kafka" in line["why"]
        copy.close()

    run(test)


def test_garbage_in_the_changelogs_is_said_and_written_over(kafka, store):
    """Of any producer: the twins and entries are as they were, and newest again."""

    async def test():
        car = _fill(kafka)[0]
        key, entry = _entry(car, 1)
        for topic, name in ((topics.TWINS, car), (topics.LEDGER, key)):
            for value in (b"\xff", b"{}", None, b'{"epoch":"x"}', b'{"epoch":%b}' % (b"9" * 30)):
                kafka.append((topic, 0), name, value, [("outbox", b"garbage")])
            kafka.append((topic, 0), None, b"x")
            kafka.append((topic, 0), b"\xff\x00", b"x")
        worker = Worker(kafka, store)
        with capture_logs() as lines:
            await worker.restore()
        said = {line["place"]: line["records"] for line in lines if line["log_level"] == "error"}
        assert said == {(topics.TWINS, 0): 7, (topics.LEDGER, 0): 7}
        assert worker.owner.parts[0].twins[car].version[2] == 5
        assert kafka.newest(topics.TWINS, car)["revision"] == 5
        assert kafka.newest(topics.LEDGER, key) == {**orjson.loads(entry), "epoch": 2}
        assert await worker.take(telemetry(0, car))
        assert not worker.faults

    run(test)


def test_a_partition_that_is_not_assigned_any_more_is_let_go(kafka, store):
    """With what the copy knows of it, so that its age is not made young again."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore()
        await owner.take(telemetry(0))
        owner.commit(telemetry=1)
        await owner.takeover.restore({}, 2, lambda: True)
        assert owner.owner.parts == {}
        assert owner.owner.mark() == {}

    run(test)


def test_a_worker_with_a_copy_that_dies_twice_forgets_no_grave_and_no_outbox(
    kafka, store, tmp_path
):
    """What the first restart found is found by the second, too, for nothing of it is committed."""

    async def test():
        first = Worker(kafka, store, copy := Copy(tmp_path))
        await first.restore()
        await first.take(telemetry(0), telemetry(1, OTHER))
        first.commit(telemetry=2)
        first.owner._write_outputs = die  # type: ignore[method-assign]
        assert not await first.take(telemetry(2), request(0, "delete", {}), telemetry(3, OTHER))
        for second in (2, 3, 4):
            copy.close()
            worker = Worker(kafka, store, copy := Copy(tmp_path))
            if second == 2:
                worker.takeover._finish = die  # type: ignore[method-assign]
                with pytest.raises(Killed):
                    await worker.restore({"telemetry": 2}, second)
                continue
            await worker.restore({"telemetry": 2}, second)
            assert store.replies["r0"]["status"] == 204
            assert set(worker.owner.parts[0].twins) == {OTHER}
            assert await worker.take(telemetry(2), request(0, "delete", {}), telemetry(3, OTHER))
            assert set(worker.owner.parts[0].twins) == {OTHER}
            assert worker.owner.parts[0].twins[OTHER].version[2] == 2
        kinds = [(c["vehicle_id"], c["kind"]) for c in kafka.values(topics.CHANGES)]
        assert kinds.count((CAR, "created")) == 1
        assert kinds.count((CAR, "deleted")) >= 1
        copy.close()

    run(test)


def test_the_copy_is_read_on_from_before_a_tombstone_that_is_still_needed(kafka, store, tmp_path):
    """A commit that does not cover what the deleted twin had applied leaves its grave open."""

    async def test():
        worker = Worker(kafka, store, copy := Copy(tmp_path))
        await worker.restore()
        await worker.take(telemetry(0), telemetry(1), request(0, "delete", {}))
        worker.commit(telemetry=1)
        await worker.take(telemetry(2, OTHER))
        copy.close()
        again = Worker(kafka, store, copy := Copy(tmp_path))
        await again.restore({"telemetry": 1}, second=2)
        assert await again.take(telemetry(1))
        assert set(again.owner.parts[0].twins) == {OTHER}
        assert await again.take(request(0, "delete", {}))
        await again.take(telemetry(3, OTHER))
        again.commit(telemetry=4, requests=1)
        assert again.owner.parts[0].graves == {}
        await again.take(telemetry(4, OTHER))
        copy.close()
        last = Copy(tmp_path)
        assert last.tail(PLACE, 0, 100).end == len(kafka.logs[PLACE]) - 1
        last.close()

    run(test)


def test_the_copy_gets_a_ledger_entry_that_a_former_owner_had_not_told(kafka, store, tmp_path):
    """It was in an outbox only; the ledger that was read has an older state of it."""

    async def test():
        first = Worker(kafka, store, copy := Copy(tmp_path))
        await first.restore()
        command = {"id": ids.command_id(CAR, 1, "x"), "name": "ping", "args": {}, "ttl_s": 60}
        await first.take(telemetry(0), telemetry(1, OTHER))
        await first.take(request(0, "command", {**command, "lane": "default"}))
        first.owner._write_outputs = die  # type: ignore[method-assign]
        assert not await first.take(request(1, "cancel", {"command_id": command["id"]}))
        for second, committed in ((2, 1), (3, 3)):
            copy.close()
            again = Worker(kafka, store, copy := Copy(tmp_path))
            await again.restore({"telemetry": 2, "requests": committed}, second)
            assert again.owner.parts[0].book.get(command["id"])["state"] == "cancelled"
            other = {**command, "id": ids.command_id(OTHER, second, "x"), "lane": "default"}
            await again.take(request(second, "command", other, OTHER))
            again.commit(telemetry=2, requests=second + 1)
            await again.take(telemetry(second))
        copy.close()
        last = Copy(tmp_path)
        tail = last.tail((topics.LEDGER, 0), 0, 100)
        entry = orjson.loads(tail.newest[f"{CAR}/{command['id']}"].value)
        assert entry["state"] == "cancelled"
        last.close()

    run(test)


def test_a_restart_from_a_copy_goes_above_an_epoch_under_which_nothing_was_written(
    kafka, store, tmp_path
):
    """The fence lies before the place from which the copy is read on."""

    async def test():
        copy = Copy(tmp_path)
        for second in (1, 1, 1):
            worker = Worker(kafka, store, copy)
            await worker.restore({"telemetry": 0}, second)
            copy.close()
            copy = Copy(tmp_path)
        assert store.owners == {0: 3}
        copy.close()

    run(test)


def test_a_redis_that_outlived_its_kafka_is_taken_over(kafka, store):
    """Nothing in the changelogs says which epochs it has seen; time does."""

    async def test():
        former, owner = Worker(kafka, store), Worker(Kafka(), store)
        for second in (7, 7, 7):
            await former.restore(second=second)
        assert store.owners == {0: 9}
        await owner.restore(second=60)
        assert await owner.take(telemetry(0))
        assert store.owners == {0: 60}

    run(test)


def test_an_error_while_a_partition_is_taken_over_ends_the_worker(kafka, store):
    """It is handed to whoever ends the process, not raised into Faust."""

    async def test():
        worker = Worker(kafka, store)
        store.owners[0] = 9
        faults = []
        worker.takeover._on_fault = faults.append
        await worker.restore()
        assert [type(fault) for fault in faults] == [FormerOwner]

    run(test)


def test_a_state_is_not_written_again_before_it_is_written_with_its_outbox(kafka, store):
    """A kill in between would leave a durable state of which nobody knows what to tell."""

    async def test():
        owner = Worker(kafka, store)
        await owner.restore(second=5)
        await owner.take(telemetry(0))
        owner.producer.frozen = True
        bad = record(topics.TELEMETRY, b"x", 1)
        asked = request(0, "attributes", {"value": {"a": "b"}})
        taking = asyncio.create_task(owner.take(bad, asked))
        await asyncio.sleep(0.02)
        kafka.append(PLACE, CAR, orjson.dumps({"epoch": 4}))
        watching = asyncio.create_task(owner.takeover.watch(lambda: True))
        await asyncio.sleep(0.02)
        owner.producer.frozen = False
        assert await taking
        await watching
        written = [m for m in kafka.logs[PLACE] if b'"a":"b"' in (m.value() or b"")]
        assert OUTBOX in dict(written[0].headers())

    run(test)
