"""The view on a real Redis: exact after any writes, fenced, whole again after a loss."""

import asyncio
import copy
import itertools
import subprocess
import time
from collections import defaultdict

import orjson
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
from twin.local.ports import PortPicker
from twin.local.redis import server_command
from twin.packed import pack
from twin.view import FormerOwner, Shown, packing
from twin.wire import keys

__all__ = ["store", "url"]

pytestmark = pytest.mark.integration


def stored(store, vehicle_id):
    return orjson.loads(keys.document_of(store.get(keys.twin(vehicle_id))))


def answer(request_id, status):
    """The owner's answer about the twin `a`."""
    return {
        "request_id": request_id, "vehicle_id": "a", "status": status, "body": {}, "revision": 9
    }  # fmt: skip


class OwnRedis:
    """A server of this test's own, which it may stop."""

    def __init__(self, directory):
        self._directory = directory
        self._port = PortPicker().free()
        self.url = f"redis://127.0.0.1:{self._port}/0"
        self.start()

    def start(self):
        self._process = subprocess.Popen(
            server_command(self._directory, self._port), stdout=subprocess.DEVNULL
        )
        with redis.from_url(self.url) as client:
            deadline = time.monotonic() + DEADLINE_S
            while True:
                try:
                    client.ping()
                    return
                except redis.ConnectionError:
                    assert time.monotonic() < deadline
                    time.sleep(0.02)

    def kill(self):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def own_redis(tmp_path):
    server = OwnRedis(tmp_path)
    yield server
    server.kill()


# --- what a batch shows --------------------------------------------------------------------------


def test_index_follows_the_documents(url, store):
    """Sets, counts and orders are those of the documents, whatever of them changes."""
    first = [
        twin("a", fleet="berlin", seen=1_000_000, signals={"coolant_temp": 91.5, "speed": 0}),
        twin("b", fleet="munich", presence="unknown", signals={"coolant_temp": 40}),
    ]
    then = [
        twin("a", 2, presence="offline", health="alarm", since=77, open=3, seen=9_000_000,
             signals={"coolant_temp": 118, "speed": 0}),
        twin("b", 2, fleet="munich", model="Größe \"x\"\n:", signals={"coolant_temp": 40.1}),
    ]  # fmt: skip

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(*first)
            check_index(store, {t["vehicle_id"]: t for t in first})
            await owner.write(*then)

    asyncio.run(run())
    check_index(store, {t["vehicle_id"]: t for t in then})


def test_telemetry_alone_moves_document_and_numbers(url, store):
    """A number moves in its order when it has left the lag behind, and not before."""
    lag = keys.LAG["coolant_temp"]

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            for revision, value in enumerate([90, 90 + 0.9 * lag, 90 + 1.1 * lag, 90 + 2 * lag]):
                one = twin("a", revision, signals={"coolant_temp": value})
                await owner.write(one)
                check_index(store, {"a": one})
                yield store.zscore(keys.by("coolant_temp"), "a")

    async def scores():
        return [score async for score in run()]

    assert asyncio.run(scores()) == [90, 90, 90 + 1.1 * lag, 90 + 1.1 * lag]


def test_number_that_is_none_is_left_out_of_the_orders(url, store):
    """A value that Redis cannot order (no input has any, a stranger's document may) stops nothing."""
    one = twin("a", signals={"speed": float("inf"), "coolant_temp": 5})
    shown = Shown({place("a"): 1}, {place("a"): {"a": pack(one).row("a")}})

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.view.write(shown)

    asyncio.run(asyncio.wait_for(run(), DEADLINE_S))
    assert store.zscore(keys.by("speed"), "a") is None
    assert store.zscore(keys.by("coolant_temp"), "a") == 5


def test_twin_made_again_in_the_batch_of_its_deletion_is_shown(url, store):
    """The deletion is told first: the new one begins at revision 1."""
    again = twin("a", 1, created_at=2000, fleet="munich")

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(twin("a", 51, open=1))
            await owner.write(again, deleted=["a"])

    asyncio.run(run())
    check_index(store, {"a": again})


def test_deleted_twin_leaves_nothing(url, store):
    """Document, ids, index, alarm and commands go."""
    order = command("a", "1")

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            signals = {"speed": 1, "coolant_temp": 2}
            await owner.write(
                twin("a", 3, health="alarm", open=1, seen=5, signals=signals), commands=[order]
            )
            assert store.exists(keys.command(order["id"]))
            await owner.write(deleted=["a"])

    asyncio.run(run())
    assert {raw.decode() for raw in store.keys("*")} == {keys.owner(p) for p in range(PARTITIONS)}


def test_big_batch_is_cut_and_complete(url, store):
    """More than one transaction can take arrives whole, long documents among it."""
    many = [twin(f"car-{n:04}", signals={"speed": n % 50}) for n in range(900)]
    for one in many[::100]:
        one["config"] = {"blob": "x" * 60_000}

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(*many)

    asyncio.run(run())
    check_index(store, {t["vehicle_id"]: t for t in many})


def test_commands_are_listed_removed_and_final_ones_expire(url, store):
    """Entries by vehicle and by change; a final one has 30 days; a removed one is nowhere."""
    first, second, third = command("a", "1", 5), command("a", "2", 6), command("b", "3", 7)
    done = {**first, "state": "succeeded", "updated_at": 9}

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(twin("a"), twin("b"), commands=[first, second, third])
            await owner.write(commands=[done], removed=[second["id"]])

    asyncio.run(run())
    assert store.zrange(keys.commands("a"), 0, -1) == [first["id"].encode()]
    recent = store.zrange(keys.RECENT_COMMANDS, 0, -1)
    assert recent == [third["id"].encode(), first["id"].encode()]
    assert store.get(keys.command(second["id"])) is None
    assert orjson.loads(store.get(keys.command(first["id"])))["state"] == "succeeded"
    assert 29 * 86_400 < store.ttl(keys.command(first["id"])) <= 30 * 86_400
    assert store.ttl(keys.command(third["id"])) == -1


def test_no_command_is_listed_too_long_and_none_too_short(url, store):
    """Of a long list those go whose entry has ended by itself; an open one stays, however old it is."""
    open_ = command("a", "0", 1)
    ended = [command("a", f"{n}", 1 + n, state="failed") for n in range(1, packing.LONG + 60)]
    last = command("a", "999", 9000)

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(twin("a"), commands=[open_, *ended])
            assert store.zcard(keys.commands("a")) == 1 + len(ended)
            store.delete(*(keys.command(one["id"]) for one in ended[:30]))
            await owner.write(commands=[last])

    asyncio.run(run())
    expected = [one["id"].encode() for one in [open_, *ended[30:], last]]
    assert store.zrange(keys.commands("a"), 0, -1) == expected


def test_all_commands_of_a_deleted_twin_go(url, store):
    """However many, and also those that its owner had forgotten: they ended days before."""
    orders = [command("a", f"{n}", n, state="failed") for n in range(packing.LONG + 1900)]
    other = command("b", "1", 10_000)

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(twin("a"), twin("b"), commands=[*orders, other])
            owner.commands.clear()
            await owner.write(deleted=["a"])

    asyncio.run(run())
    assert store.keys("command:*") == [keys.command(other["id"]).encode()]
    assert store.zrange(keys.RECENT_COMMANDS, 0, -1) == [other["id"].encode()]
    assert not store.exists(keys.commands("a"))


def test_whoever_gets_an_answer_finds_what_it_says(url, store, monkeypatch):
    """Answers come behind state and commands, also when each write is a transaction of its own."""
    order = command("a", "1")
    seen = []

    def look():
        seen.append([bool(store.exists(key)) for key in told])

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            transact = owner.view._link.transact

            async def watched(*transaction):
                result = await transact(*transaction)
                look()
                return result

            monkeypatch.setattr(owner.view._link, "transact", watched)
            await owner.write(twin("a"), twin("b"), commands=[order], replies=[answer("r1", 201)])
            monkeypatch.setattr(packing, "_WORK", 1)
            store.delete(*told)
            await owner.write(twin("a", 2), commands=[order], replies=[answer("r1", 201)])

    told = [keys.twin("a"), keys.command(order["id"]), keys.reply("r1")]
    asyncio.run(run())
    assert seen == [[True] * 3, [True, False, False], [True, True, False], [True] * 3]


def test_a_refusal_does_not_take_the_place_of_an_answer(url, store):
    """Under one request id what was done is told, whatever is said to a repetition."""

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            for status in (404, 409, 200, 404, 204):
                await owner.write(twin("a", status), replies=[answer("r1", status)])
                yield orjson.loads(store.get(keys.reply("r1")))["status"]

    async def statuses():
        return [status async for status in run()]

    assert asyncio.run(statuses()) == [404, 404, 200, 200, 204]
    assert 0 < store.ttl(keys.reply("r1")) <= keys.REPLY_TTL_S


FLEETS = st.sampled_from(["berlin", "munich", ""])
STATES = {
    "presence": st.sampled_from(["online", "offline"]),
    "health": st.sampled_from(["normal", "alarm"]),
    "fleet": FLEETS,
    "open": st.integers(0, 2),
    "since": st.integers(1, 3),
}
VALUES = st.dictionaries(
    st.sampled_from(["speed", "coolant_temp"]), st.floats(0, 100).map(lambda v: round(v, 2))
)
STEPS = st.one_of(
    st.tuples(st.just("telemetry"), VALUES, st.integers(0, 200_000)),
    st.tuples(st.just("change"), st.fixed_dictionaries(STATES)),
    st.tuples(st.just("delete")),
    st.tuples(st.just("again"), VALUES),
    st.tuples(st.just("kill")),
    st.tuples(st.just("lose")),
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.sampled_from("abc"), STEPS), max_size=25))
def test_index_is_exact_after_any_sequence_of_writes(url, store, steps):
    """Changes, telemetry, deletions, owners killed before or after they wrote: the model's numbers."""
    store.flushdb()
    model = {}
    parts = defaultdict(dict)
    clock = itertools.count(1)

    async def run():
        owner = Owner(url)
        await owner.claim()
        unshown = set()
        for name, (kind, *what) in steps:
            if kind in ("kill", "lose"):
                # Killed after Kafka had the batch: Redis has it not, or the owner does not know.
                if kind == "lose" and name in model:
                    change(name, "change", [{"fleet": "lost", "health": "alarm"}])
                    unshown.add(name)
                await owner.view.close()
                held = copy.deepcopy(model)
                owner = Owner(url, owner.epoch + 1)
                owner.hold(*held.values())
                await owner.claim()
                owner.start()
                await owner.shown()
                owner._run.cancel()
                await asyncio.gather(owner._run, return_exceptions=True)
                unshown.clear()
            elif kind == "delete":
                model.pop(name, None)
                parts.pop(name, None)
                await owner.write(deleted=[name])
            elif kind == "again":
                parts.pop(name, None)
                change(name, "telemetry", [what[0], 1], created_at=1000 + next(clock))
                await owner.write(model[name], deleted=[name])
            else:
                change(name, kind, what)
                model[name]["epoch"] = owner.epoch
                await owner.write(model[name])
        await owner.view.close()

    def change(name, kind, what, created_at=None):
        known = parts[name]
        if created_at is not None or name not in model:
            known["created_at"] = created_at or 1000 + next(clock)
            known["signals"] = {}
        if kind == "telemetry":
            known["signals"] = {**known["signals"], **what[0]}
            known["seen"] = what[1]
        else:
            known.update(what[0])
        model[name] = twin(name, next(clock), **known)

    asyncio.run(run())
    check_index(store, model)


# --- whose writes count --------------------------------------------------------------------------


def test_former_owner_is_refused(url, store):
    """Frozen, replaced and awake again: nothing that it still has in hand is shown (law 5)."""
    here = place("a")
    late, order = twin("a", 9, fleet="late"), command("a", "1")

    async def run():
        async with Owner(url, epoch=4) as old, Owner(url, epoch=5) as new:
            await old.claim()
            await old.write(twin("a", 7, epoch=4))
            await new.claim(here)
            await new.write(twin("a", 8, epoch=5))
            with pytest.raises(FormerOwner, match=f"partition.*{here}"):
                await old.write(late, commands=[order])
            with pytest.raises(FormerOwner):
                await old.write(replies=[answer("r", 200)])
            with pytest.raises(FormerOwner):
                await old.claim(here)
            await new.write(twin("a", 9, epoch=5))

    asyncio.run(run())
    check_index(store, {"a": twin("a", 9, epoch=5)})
    assert not store.keys("command*")
    assert not store.exists(keys.reply("r"))


def test_what_is_still_owned_goes_on(url, store):
    """One partition lost does not stop the writes of another."""
    mine, other = next(
        (a, b) for a in "abcdef" for b in "abcdef" if place(a) == 0 and place(b) == 1
    )

    async def run():
        async with Owner(url, epoch=4) as old, Owner(url, epoch=5) as new:
            await old.claim()
            await old.write(twin(mine), twin(other))
            await new.claim(1)
            await old.write(twin(mine, 2))
            with pytest.raises(FormerOwner):
                await old.write(twin(mine, 3), twin(other, 3))
            await old.write(twin(mine, 3))

    asyncio.run(run())
    check_index(store, {mine: twin(mine, 3), other: twin(other)})


def test_released_partition_is_not_written(url, store):
    """After a rebalance the worker that gave a partition away writes nothing of it, and the rest."""

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            owner.view.release([place("a")])
            with pytest.raises(FormerOwner):
                await owner.write(twin("a"))
            await owner.claim(place("a"))
            await owner.write(twin("a"))

    asyncio.run(run())
    check_index(store, {"a": twin("a")})


def test_transaction_of_a_broken_connection_comes_to_nothing(url, store):
    """What was sent before a reconnect and not yet carried out cannot overwrite what came after."""

    async def run():
        async with Owner(url) as owner, Owner(url) as second:
            await owner.claim()
            await owner.write(twin("a", 1))
            # The half that is on its way: begun under the watch, its EXEC still in a buffer.
            link = owner.view._link
            await link._connection.send_packed_command(
                b"*1\r\n$5\r\nMULTI\r\n*3\r\n$3\r\nSET\r\n$6\r\ntwin:a\r\n$3\r\nold\r\n"
            )
            stuck = link._connection
            link._connection = second.view._link._connection
            await owner.write(twin("a", 2))
            await stuck.send_packed_command(b"*1\r\n$4\r\nEXEC\r\n")
            answers = [await stuck.read_response() for _ in range(3)]
            await stuck.disconnect()
            return answers

    assert asyncio.run(run())[-1] is None
    check_index(store, {"a": twin("a", 2)})


# --- all of it -----------------------------------------------------------------------------------


def test_takeover_shows_what_differs_and_removes_what_is_not_there(url, store):
    """Missing, older and unknown twins, commands of nobody: after a claim Redis is as the tables."""
    kept, stale = command("a", "1", state="sent"), command("a", "2")
    ended, orphan = command("a", "3", state="failed"), command("gone", "4")
    there = [twin("a", 3), twin("b", 2), twin("gone", 9, open=1)]
    held = [twin("a", 3), twin("b", 4, health="alarm"), twin("new", 1)]

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(*there, commands=[kept, stale, ended, orphan])
        async with Owner(url, 2) as owner:
            owner.hold(*held, commands=[kept])
            await owner.claim()
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {t["vehicle_id"]: t for t in held})
    entries = {raw.decode().partition(":")[2] for raw in store.keys("command:*")}
    # Ended ones live 30 days, longer than the owner's book keeps them.
    assert entries == {kept["id"], ended["id"]}
    assert store.keys(keys.commands("gone")) == []


def test_other_partitions_are_left_alone(url, store):
    """A takeover removes nothing of a partition that another worker owns."""
    ours = [v for v in "abcdefgh" if place(v) == 0]
    theirs = [v for v in "abcdefgh" if place(v) == 1]
    order = command(theirs[0], "1")

    async def run():
        async with Owner(url, 1) as other, Owner(url, 2) as owner:
            await other.claim()
            await other.write(*map(twin, ours + theirs), commands=[order])
            owner.hold(twin(ours[0]))
            await owner.claim(0)
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {v: twin(v) for v in [ours[0], *theirs]})
    assert store.exists(keys.command(order["id"]))


@pytest.mark.parametrize("lose", ["flushdb", "owners"])
def test_loss_is_noticed_while_nothing_is_written(url, store, lose):
    """Redis emptied, or its keys of ownership gone: within seconds everything is there again."""
    many = [twin(f"car-{n}", open=n % 2) for n in range(700)]
    order = command("car-1", "1")

    async def run():
        async with Owner(url) as owner:
            owner.hold(*many, commands=[order])
            await owner.claim()
            owner.start()
            await owner.shown()
            if lose == "flushdb":
                store.flushdb()
            else:
                store.delete(*(keys.owner(p) for p in range(PARTITIONS)))
                store.delete(keys.twin("car-7"))
            async with asyncio.timeout(DEADLINE_S):
                while store.exists(keys.twin("car-7"), keys.owner(0)) < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            await owner.shown()

    asyncio.run(run())
    check_index(store, {t["vehicle_id"]: t for t in many})
    assert store.exists(keys.command(order["id"]))


def test_loss_is_noticed_by_the_next_write(url, store):
    """A batch after a flush is shown in full, at once, and the rest follows."""
    many = [twin(f"car-{n}", fleet="munich") for n in range(50)]
    newer = twin("car-3", 2, fleet="munich", signals={"speed": 3})

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(*many)
            store.flushdb()
            await owner.write(newer)
            check_index(store, {"car-3": newer})
            owner.start()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {**{t["vehicle_id"]: t for t in many}, "car-3": newer})


def test_batches_go_on_while_everything_is_shown(url, store):
    """Writes, deletions and new twins between the steps of a takeover end in the tables' state."""
    held = [twin(f"car-{n:04}", 1, signals={"speed": 5}) for n in range(2000)]

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(*(twin(f"old-{n}") for n in range(300)), *held[::3])
        async with Owner(url, 2) as owner:
            owner.hold(*copy.deepcopy(held))
            await owner.claim()
            owner.start()
            for n in range(100):
                name = f"car-{(n * 37) % 2000:04}"
                if n % 5 == 0:
                    await owner.write(deleted=[name])
                elif n % 5 == 1:
                    await owner.write(twin(f"new-{n}", epoch=2))
                else:
                    changed = twin(name, 2 + n, epoch=2, fleet="munich", signals={"speed": n})
                    await owner.write(changed)
            await owner.shown()
            return {v: t for part in owner.twins.values() for v, t in part.items()}

    check_index(store, asyncio.run(run()))


def test_nothing_is_shown_before_it_is_durable(url, store):
    """What a takeover reads from the live tables waits until Kafka has it; live batches do not."""

    async def run():
        acknowledged = asyncio.Event()
        async with Owner(url) as owner:
            owner.hold(twin("a"), twin("b"))
            await owner.claim()
            owner.start(acknowledged.wait)
            await owner.write(twin("b", 2))
            for _ in range(50):
                await asyncio.sleep(0)
            early = store.keys("twin:*")
            acknowledged.set()
            await owner.shown()
            return early

    assert asyncio.run(run()) == [b"twin:b"]
    check_index(store, {"a": twin("a"), "b": twin("b", 2)})


class Gate:
    """What Kafka has not acknowledged yet: who waits for it, waits until it opens."""

    def __init__(self):
        self.reached, self.opened, self.waited = asyncio.Event(), asyncio.Event(), 0

    async def durable(self):
        self.waited += 1
        self.reached.set()
        await self.opened.wait()


def test_twin_deleted_while_the_takeover_waits_does_not_return(url, store):
    """Between reading the tables and showing them a batch deletes one twin and changes another."""

    async def run():
        gate = Gate()
        async with Owner(url) as owner:
            owner.hold(twin("a"), twin("b"), twin("c"))
            await owner.claim(*{place(v) for v in "abc"})
            owner.start(gate.durable)
            await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
            await owner.write(twin("b", 2), deleted=["a"])
            gate.opened.set()
            await owner.shown()
            return gate.waited

    # Once for each partition that had something to show, and never because something is too much.
    assert asyncio.run(run()) == len({place(v) for v in "abc"})
    check_index(store, {"b": twin("b", 2), "c": twin("c")})


def test_twin_made_while_it_is_about_to_be_swept_stays(url, store):
    """What a former owner left is looked at once more before it is removed."""

    async def run():
        async with Owner(url, 1) as before:
            await before.claim()
            await before.write(twin("a", 9), twin("b", 9))
        gate = Gate()
        async with Owner(url, 2) as owner:
            await owner.claim()
            owner.start(gate.durable)
            await asyncio.wait_for(gate.reached.wait(), DEADLINE_S)
            await owner.write(twin("a", 1, epoch=2))
            gate.opened.set()
            await owner.shown()

    asyncio.run(run())
    check_index(store, {"a": twin("a", 1, epoch=2)})


def test_older_state_of_a_batch_on_its_way_does_not_replace_a_shown_one(url, store):
    """The takeover may be ahead of the batches: a reader never sees a revision go back."""
    newest = twin("a", 5)

    async def run():
        async with Owner(url) as owner:
            owner.hold(newest)
            await owner.claim()
            owner.start()
            await owner.shown()
            older = twin("a", 4)
            await owner.view.write(
                Shown({place("a"): 1}, {place("a"): {"a": pack(older).row(older["vehicle_id"])}})
            )

    asyncio.run(run())
    check_index(store, {"a": newest})


# --- Redis away ----------------------------------------------------------------------------------


def test_write_waits_for_redis_and_says_why(own_redis):
    """While Redis is away the view names the fault; back, and empty, it gets everything."""

    async def run():
        async with Owner(own_redis.url) as owner:
            await owner.claim()
            await owner.write(twin("a"))
            own_redis.kill()
            batch = asyncio.create_task(owner.write(twin("b")))
            async with asyncio.timeout(DEADLINE_S):
                while owner.view.fault is None:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not batch.done()
            own_redis.start()
            await asyncio.wait_for(batch, DEADLINE_S)
            assert owner.view.fault is None
            owner.start()
            await owner.shown()

    asyncio.run(run())
    with redis.from_url(own_redis.url) as store:
        check_index(store, {"a": twin("a"), "b": twin("b")})


def test_restart_with_an_old_snapshot_is_noticed(own_redis):
    """A Redis that comes back with less than it had is brought up to date, silent twins too."""

    async def run():
        async with Owner(own_redis.url) as owner:
            await owner.claim()
            await owner.write(twin("a", 1), twin("b", 1), twin("c", 1))
            with redis.from_url(own_redis.url) as store:
                store.save()
            await owner.write(twin("a", 2, fleet="munich"), deleted=["c"])
            own_redis.kill()
            own_redis.start()
            owner.start()
            await owner.write(twin("b", 2))
            await owner.shown()

    asyncio.run(run())
    with redis.from_url(own_redis.url) as store:
        check_index(store, {"a": twin("a", 2, fleet="munich"), "b": twin("b", 2)})


def test_what_is_shown_ends_with_the_ownership(url, store):
    """A partition that is released between two transactions gets nothing more: nobody would fence it."""
    many = [twin(f"car-{n}") for n in range(1000)]

    async def run():
        async with Owner(url) as owner:
            owner.hold(*many)
            await owner.claim()
            link = owner.view._link
            transact, sent = link._transact, []

            async def released_behind_the_first(commands, count):
                done = await transact(commands, count)
                sent.append(count)
                owner.view.release(range(PARTITIONS))
                return done

            link._transact = released_behind_the_first
            part = owner.view._parts[0]
            with pytest.raises(FormerOwner):
                await owner.view._show_twins(0, part, durable)
            assert len(sent) == 1

    asyncio.run(run())
    assert 0 < len(store.keys("twin:*")) < 500
