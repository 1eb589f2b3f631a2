"""What a takeover shows beside batches that go on, on a real Redis: the newest state, and all of it."""

import asyncio
import itertools

import orjson
import pytest

from tests.redis_view import (
    DEADLINE_S,
    PARTITIONS,
    Owner,
    check_index,
    command,
    durable,
    place,
    store,
    twin,
    url,
)
from twin.view import scripts, sweep
from twin.wire import keys

__all__ = ["store", "url"]

pytestmark = pytest.mark.integration


class Gate:
    """What Kafka has not acknowledged yet: who waits for it, waits until it opens."""

    def __init__(self):
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def durable(self):
        self.reached.set()
        await self.opened.wait()


def counted(*, late, revision=5, **parts):
    """The twin `a`, which has applied as many late records since its revision."""
    applied = {"telemetry": [place("a"), 100 * revision + late]}
    return twin("a", revision, applied=applied, late=late, signals={"speed": 1}, **parts)


def lose_when_written(view, store, times=1):
    """Redis is emptied just before the next writes of the view."""
    transact, left = view._link.transact, [times]

    async def lost(*transaction):
        if left[0]:
            left[0] -= 1
            store.flushdb()
            await view._link.check()
        return await transact(*transaction)

    view._link.transact = lost


def test_late_telemetry_of_a_killed_owner_is_shown(url, store):
    """It counts and is no revision, so Redis has another state of the same version."""

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(counted(late=0), twin("b", 2))
        async with Owner(url, 2) as owner:
            owner.hold(counted(late=1), twin("b", 2))
            await owner.claim()
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {"a": counted(late=1), "b": twin("b", 2)})


def test_what_only_another_topic_has_moved_is_shown(url, store):
    """An outcome that was overtaken changes what was applied, and nothing else."""
    before = twin("a", 5, applied={"telemetry": [0, 7], "outcomes": [0, 3]})
    after = twin("a", 5, applied={"telemetry": [0, 7], "outcomes": [0, 4]})

    async def run():
        async with Owner(url, 1) as former:
            await former.claim()
            await former.write(before)
        async with Owner(url, 2) as owner:
            owner.hold(after)
            await owner.claim()
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {"a": after})


def test_what_is_the_same_is_not_written(url, store):
    """Of twins that Redis has as their owner has them, a takeover writes none."""
    many = [twin(f"car-{n}", n, applied={"telemetry": [0, n]}, fleet="ä\n") for n in range(1200)]

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(*many)
        async with Owner(url, 2) as owner:
            owner.hold(*many)
            await owner.claim()
            transact, sent = owner.view._link.transact, []

            async def counting(commands, count, epochs):
                sent.append(count)
                return await transact(commands, count, epochs)

            owner.view._link.transact = counting
            owner.start()
            await owner.shown()
            return sent

    assert asyncio.run(run()) == []


def test_state_that_waits_for_kafka_does_not_replace_what_a_batch_has_shown(url, store):
    """The takeover has read the twin, and a batch with a late record was shown before it may write."""
    newest = counted(late=1)

    async def run():
        gate = Gate()
        async with Owner(url) as owner:
            owner.hold(counted(late=0))
            await owner.claim(place("a"))
            owner.start(gate.durable)
            await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
            await owner.write(newest)
            gate.opened.set()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {"a": newest})


def test_state_that_waits_for_kafka_is_not_shown_again_when_redis_was_lost(url, store):
    """Emptied just then: everything is looked at anew, and the newest is shown."""
    newest = counted(late=0, revision=9)

    async def run():
        gate = Gate()
        async with Owner(url) as owner:
            owner.hold(counted(late=0), twin("b" if place("b") == place("a") else "c"))
            await owner.claim(place("a"))
            owner.start(gate.durable)
            await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
            await owner.write(newest)
            lose_when_written(owner.view, store)
            gate.opened.set()
            await owner.shown()
            return {v: t for part in owner.twins.values() for v, t in part.items()}

    held = asyncio.run(run())
    assert held["a"] is newest
    check_index(store, {v: t for v, t in held.items() if place(v) == place("a")})


def test_all_commands_are_shown_when_redis_is_lost_among_them(url, store):
    """More than one write takes: those that were shown before the loss are shown once more."""
    orders = [command("a", f"{n}") for n in range(1300)]

    async def run():
        async with Owner(url) as owner:
            owner.hold(twin("a"), commands=orders)
            await owner.claim(place("a"))
            part = owner.view._parts[place("a")]
            await owner.view._show_twins(place("a"), part, durable)
            await owner.view._show_commands(place("a"), part, durable)
            assert 0 < len(store.keys("command:*")) < len(orders)
            lose_when_written(owner.view, store)
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {"a": twin("a")})
    assert len(store.keys("command:*")) == len(orders)


def test_sweep_passes_over_what_is_no_command(url, store):
    """Strange members of a list, entries that are none, names that are no text: the rest is swept."""
    open_, ended = command("a", "1"), command("a", "2", state="failed")
    orders = [command("a", f"{n}") for n in range(100, 180)]

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(twin("a"), commands=[open_, ended, *orders])
        store.zadd(keys.commands("a"), {"rubbish": 1, b"\xff": 1, command("b", "9")["id"]: 1})
        store.zadd(b"commands:\xfe", {"rubbish": 1})
        store.zadd(keys.commands("no vehicle/"), {"rubbish": 1})
        store.zadd(keys.IDS, {b"\xfd": 0})
        store.set(keys.command(orders[0]["id"]), "rubbish")
        store.set(keys.command(orders[1]["id"]), "[]")
        async with Owner(url, 2) as owner:
            owner.hold(twin("a"), commands=[open_])
            await owner.claim()
            owner.start()
            await owner.shown()

    asyncio.run(run())
    found = {raw.decode().partition(":")[2] for raw in store.keys("command:*")}
    assert found == {open_["id"], ended["id"]}


def test_a_step_of_the_sweep_asks_little(url, store):
    """However many ended commands a fleet has: between two questions other writes get their turn."""
    fleet = [twin(f"car-{n}") for n in range(120)]
    orders = [command(one["vehicle_id"], f"{n}", state="failed") for one in fleet for n in range(4)]

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(*fleet, commands=orders)
            owner.commands.clear()
            for part in owner.view._parts.values():
                part.commands = {}
            link, asked = owner.view._link, []
            ask = link.ask

            async def counting(*arguments):
                asked.append(len(arguments))
                return await ask(*arguments)

            link.ask = counting
            turns = []
            async for strays in sweep.steps(link, owner.view._parts, PARTITIONS):
                assert not strays
                turns.append(len(asked))
            return turns, asked

    turns, asked = asyncio.run(run())
    assert max(b - a for a, b in itertools.pairwise(turns)) <= 1
    assert max(asked) <= 54


def test_long_lists_are_swept_a_few_at_a_time(url, store, monkeypatch):
    """All of them, though a step asks no further when it has enough; strays behind many go, too."""
    monkeypatch.setattr(sweep, "_ENOUGH", 3)
    fleet = [twin(f"car-{n}") for n in range(7)]
    orders = [command(one["vehicle_id"], f"{n}", state="failed") for one in fleet for n in range(4)]
    strays = [command(one["vehicle_id"], "9") for one in fleet]

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(*fleet, commands=[*orders, *strays])
        async with Owner(url, 2) as owner:
            owner.hold(*fleet)
            await owner.claim()
            owner.start()
            await owner.shown()

    asyncio.run(run())
    found = {raw.decode().partition(":")[2] for raw in store.keys("command:*")}
    assert found == {order["id"] for order in orders}


def test_a_value_that_is_no_twin_stops_no_write(url, store):
    """Its place is taken, and no owner waits for ever for a script that fails on it."""
    one = twin("a", 2, fleet="munich")
    for value in ("rubbish", "[1,2]\n", '[1,2,3,"a","b","c","d",5]\n{}'):
        store.set(keys.twin("a"), value)

        async def run():
            async with Owner(url) as owner:
                await owner.claim()
                await asyncio.wait_for(owner.write(one), DEADLINE_S)

        asyncio.run(run())
        check_index(store, {"a": one})
        store.flushdb()


def test_careful_entry_is_written_over_rubbish(url, store):
    """What is no entry has no version that could be newer."""
    order = command("a", "1")
    arguments = (order["id"], "a", orjson.dumps(order), 0, 0, 1000, 1000, "")
    for value in ("rubbish", "7", '{"epoch":"x","updated_at":[]}', '{"epoch":null}'):
        store.set(keys.command(order["id"]), value)
        assert store.eval(scripts.COMMAND, 0, *arguments) == 1
        assert orjson.loads(store.get(keys.command(order["id"]))) == order
