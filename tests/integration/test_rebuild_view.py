"""The read model made anew from the changelogs: on a real Redis, over a log in memory and over Kafka."""

import asyncio
import os
import subprocess
import sys
import time
from collections import defaultdict

import orjson
import pytest
from confluent_kafka import Producer

from tests.redis_view import (
    PARTITIONS,
    Owner,
    check_index,
    command,
    document,
    key_of,
    outbox,
    place,
    store,
    twin,
    url,
)
from twin.changelog import Newest
from twin.rebuild import Rebuild
from twin.view.repair import Repair
from twin.wire import keys
from twin.wire.partition import partition_of

__all__ = ["store", "url"]

pytestmark = pytest.mark.integration


class Log:
    """Changelogs in memory; reads them as `twin.changelog.Reader` does."""

    def __init__(self):
        self.records = defaultdict(list)
        self.readings = 0
        self.before = {}
        """Number of a reading of both changelogs (from 1) -> what happens just before it."""

    def append(self, where, key, value, outbox=None):
        self.records[where].append((key, value, outbox))

    def read(self, tails, _wanted):
        if all(topic == "ledger" for topic, _ in tails):
            self.readings += 1
            self.before.pop(self.readings, lambda: None)()
        for where, tail in tails.items():
            for key, value, header in self.records[where][tail.end :]:
                tail.newest[key] = Newest(value, {}, tail.end)
                tail.end += 1
                if header is not None:
                    tail.outboxes.append((key, header))
        return True


MEANWHILE, BEFORE_STRAYS, BEHIND_STRAYS, COMPARING = range(PARTITIONS + 1, PARTITIONS + 5)
"""Readings behind those of the partitions one by one."""


def now():
    """Ms."""
    return time.time_ns() // 1_000_000


async def rebuild(log, url):
    repair = Repair(url)
    try:
        return await Rebuild(log, repair, PARTITIONS).run()
    finally:
        await repair.close()


def entries(store):
    """The ledger's entries that Redis has, by id."""
    found = {raw.decode().partition(":")[2]: store.get(raw) for raw in store.keys("command:*")}
    return {command_id: orjson.loads(entry) for command_id, entry in found.items()}


def logged(log, *twins, commands=()):
    for one in twins:
        log.append(("twins", place(one["vehicle_id"])), one["vehicle_id"], document(one))
    for one in commands:
        key = f"{one['vehicle_id']}/{one['id']}"
        log.append(("ledger", place(one["vehicle_id"])), key, orjson.dumps(one))


def test_empty_redis_gets_what_the_log_has(url, store):
    """The newest of each twin and command, with the whole index; deleted ones are not in it."""
    log = Log()
    kept, ended = command("a", "1"), command("a", "2", at=now(), state="failed")
    last = [
        twin(f"car-{n:03}", 2, open=n % 2, health="alarm" if n % 9 == 0 else "normal",
             signals={"speed": n}, seen=n + 1)
        for n in range(240)
    ]  # fmt: skip
    logged(log, *(twin(one["vehicle_id"], 1) for one in last), twin("a"), twin("b"))
    logged(log, *last, commands=[kept, ended, command("b", "3")])
    log.append(("twins", place("b")), "b", None)
    log.append(("ledger", place("b")), f"b/{command('b', '3')['id']}", None)
    report = asyncio.run(rebuild(log, url))
    check_index(store, {one["vehicle_id"]: one for one in [*last, twin("a")]})
    assert {raw.decode() for raw in store.keys("command:*")} == {
        keys.command(kept["id"]),
        keys.command(ended["id"]),
    }
    assert store.ttl(keys.command(kept["id"])) == -1
    assert (report.ok, report.twins, report.commands, report.written) == (True, 241, 2, 241)
    assert (report.missing, report.extra, report.unreadable) == (0, 0, 0)


def test_newer_documents_and_entries_stay(url, store):
    """What an owner has shown meanwhile is not replaced: epoch, then creation, then revision."""
    newer = [twin("a", 2, epoch=3, created_at=1, fleet="munich"), twin("b", 1, created_at=2000),
             twin("c", 8)]  # fmt: skip
    older = [twin("a", 9, epoch=2, created_at=5), twin("b", 9), twin("c", 7, fleet="munich")]
    entry = command("a", "1", at=50, state="sent", revision=5, epoch=3)
    log = Log()

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(*newer, commands=[entry])
        logged(log, *older, commands=[{**entry, "state": "queued", "epoch": 2, "revision": 9}])
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {one["vehicle_id"]: one for one in newer})
    assert orjson.loads(store.get(keys.command(entry["id"])))["state"] == "sent"
    assert (report.ok, report.written, report.newer) == (True, 0, 3)


def test_damaged_index_is_put_right(url, store):
    """Lost documents, wrong sets, ghosts in the orders, false counts, unknown twins and commands."""
    twins = [twin(f"c{n}", 3, fleet="ab"[n % 2], open=n, signals={"speed": n}) for n in range(6)]
    order, stray = command("c1", "1"), command("ghost", "2")
    log = Log()

    async def run():
        async with Owner(url, log=log) as owner:
            await owner.claim()
            await owner.write(*twins, commands=[order])
            owner._log = None
            await owner.write(twin("ghost", 4, health="alarm"), commands=[stray])
        store.delete(keys.twin("c2"), keys.command(order["id"]))
        store.srem(keys.having("fleet", "a"), "c4")
        store.sadd(keys.having("fleet", "b"), "c4", "nobody")
        store.sadd(keys.having("model", "never"), "c1")
        store.zadd(keys.count("fleet"), {"a": 77, "z": 5})
        store.zadd(keys.values("presence"), {"dreaming": 0})
        store.zadd(keys.by("speed"), {"nobody": 5, "c5": 99})
        store.zadd(keys.ALARMS, {"nobody": 5})
        store.zrem(keys.IDS, "c3")
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {one["vehicle_id"]: one for one in twins})
    assert {raw.decode() for raw in store.keys("command:*")} == {keys.command(order["id"])}
    assert store.keys("commands:*") == [keys.commands("c1").encode()]
    assert report.ok
    assert report.removed == 1
    assert report.tidied >= 5


def test_twin_deleted_while_it_is_put_back_does_not_return(url, store):
    """Its tombstone came behind what was read first; one made again behind that stays, too."""
    log = Log()
    first, again = twin("a", 5), twin("b", 1, created_at=9000)
    logged(log, first, twin("b", 4), twin("c", 1))

    def deleted():
        # As an owner: first the log, then Redis, which has got the twins back from us by then.
        log.append(("twins", place("a")), "a", None)
        log.append(("twins", place("b")), "b", None)

    log.before[BEFORE_STRAYS] = deleted
    log.before[BEHIND_STRAYS] = lambda: logged(log, again)

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(again, deleted=["b"])
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"b": again, "c": twin("c", 1)})
    assert report.ok


def test_rebuild_goes_on_beside_an_owner_at_work(url, store):
    """Changes, deletions, new twins, commands in flight: in the end Redis has what both agree on."""
    log = Log()
    held = [twin(f"car-{n:04}", 1, signals={"speed": 1}) for n in range(600)]

    async def run():
        async with Owner(url, log=log) as owner:
            await owner.claim()
            await owner.write(*held)
            store.delete(*(keys.twin(f"car-{n:04}") for n in range(0, 600, 7)))
            running = asyncio.create_task(rebuild(log, url))
            n = 0
            while not running.done():
                n += 1
                name = f"car-{(n * 37) % 700:04}"
                if n % 5 == 0:
                    await owner.write(deleted=[name])
                else:
                    state = "online" if n % 2 else "offline"
                    one = twin(
                        name, 1 + n, created_at=1000 + n, presence=state, signals={"speed": n}
                    )
                    orders = [command(name, str(n), revision=1 + n)] if n % 3 else []
                    await owner.write(one, commands=orders)
            assert n > 5
            return running.result(), owner

    report, owner = asyncio.run(run())
    check_index(store, {v: t for part in owner.twins.values() for v, t in part.items()})
    assert entries(store) == {
        one["id"]: one for part in owner.commands.values() for one in part.values()
    }
    assert report.ok


def test_unreadable_records_are_counted_and_the_rest_is_shown(url, store):
    """A document that is none does not stop the rebuilding, and does not pass as success."""
    log = Log()
    logged(log, twin("a"), commands=[command("a", "1")])
    for value in (b"", b"{}", b"[]", b"\xff"):
        log.append(("twins", 0), f"bad-{value.hex()}", value)
        log.append(("ledger", 1), f"bad/{value.hex()}", value)
    report = asyncio.run(rebuild(log, url))
    assert (report.ok, report.unreadable, report.twins, report.commands) == (False, 8, 1, 1)
    check_index(store, {"a": twin("a")})


# --- commands whose own record is not there yet -----------------------------------------------------


def told(log, one, *commands, **more):
    """The record of a twin, with what its batch tells of commands; the ledger has not heard of it."""
    name = one["vehicle_id"]
    log.append(("twins", place(name)), name, document(one), outbox(*commands, **more))


async def shown(url, *twins, commands=()):
    """An owner that has shown these, and does nothing more."""
    async with Owner(url) as owner:
        await owner.claim()
        await owner.write(*twins, commands=commands)


def test_command_that_the_ledger_has_not_heard_of_stays(url, store):
    """Its owner froze between telling Redis and the ledger: the outbox of its twin speaks for it."""
    log = Log()
    one, order = twin("a", 3), command("a", "1", revision=3)
    told(log, one, order)
    # One that nobody speaks for goes, beside it.
    stray = command("a", "2", revision=3)

    async def run():
        await shown(url, one, commands=[order, stray])
        return await rebuild(log, url)

    report = asyncio.run(run())
    assert entries(store) == {order["id"]: order}
    assert store.zrange(keys.commands("a"), 0, -1) == [order["id"].encode()]
    assert (report.ok, report.commands, report.commands_removed) == (True, 1, 1)


def test_open_command_stays_when_compaction_took_its_outbox(url, store):
    """The batch behind it was durable, too, when the owner froze: the newest document has it open."""
    log = Log()
    order = command("a", "1", revision=3)
    one = twin("a", 4)
    one["commands"]["open"] = [order["id"]]
    told(log, one)

    async def run():
        await shown(url, one, commands=[order])
        return await rebuild(log, url)

    report = asyncio.run(run())
    assert entries(store) == {order["id"]: order}
    assert (report.ok, report.commands_removed) == (True, 0)


def test_command_given_while_strays_are_looked_for_stays(url, store):
    """It was in Redis before we saw it and in Kafka before that: reading on finds it."""
    log = Log()
    logged(log, twin("a", 1))
    order = command("a", "1", revision=2)
    log.before[BEHIND_STRAYS] = lambda: told(log, twin("a", 2), order)

    async def run():
        await shown(url, twin("a", 2), commands=[order])
        return await rebuild(log, url)

    report = asyncio.run(run())
    assert entries(store) == {order["id"]: order}
    assert (report.ok, report.commands_removed) == (True, 0)


def test_entry_that_is_another_by_now_is_not_removed(url, store):
    """Between judging a stray and removing it an owner may write what has the same id."""
    log = Log()
    logged(log, twin("a", 1))
    seen = command("a", "1", revision=9)
    other = {**seen, "revision": 2, "state": "sent"}

    def written_behind_the_reading():
        store.set(keys.command(seen["id"]), orjson.dumps(other))
        log.before[COMPARING] = lambda: told(log, twin("a", 2), other)

    log.before[BEHIND_STRAYS] = written_behind_the_reading

    async def run():
        await shown(url, twin("a", 1), commands=[seen])
        return await rebuild(log, url)

    report = asyncio.run(run())
    assert entries(store) == {seen["id"]: other}
    assert (report.ok, report.commands_removed) == (True, 0)


def test_twin_that_is_another_by_now_is_not_removed(url, store):
    """Not even one made again by a record that came into the system before the old twin did."""
    log = Log()
    again = twin("a", 1, created_at=900)

    def written_behind_the_reading():
        asyncio.run(shown(url, again))
        log.before[COMPARING] = lambda: logged(log, again)

    log.before[BEHIND_STRAYS] = written_behind_the_reading

    async def run():
        await shown(url, twin("a", 7))
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"a": again})
    assert (report.ok, report.removed) == (True, 0)


def test_outboxes_are_shown_as_the_ledger_is(url, store):
    """Without any owner at work: the newest word on a command, whichever topic has it."""
    log = Log()
    first, second, third = (command("a", n, revision=3) for n in "123")
    done = {**first, "state": "sent", "revision": 5}
    logged(log, commands=[first, second, third])
    told(log, twin("a", 3), first, second, third)
    told(log, twin("a", 5), done)
    told(log, twin("a", 6), removed=[second["id"]], revision=6)
    log.append(("ledger", place("a")), key_of(third), None)
    report = asyncio.run(rebuild(log, url))
    assert entries(store) == {first["id"]: done}
    assert (report.ok, report.commands) == (True, 1)


def test_late_record_of_the_ledger_does_not_bring_a_removed_command_back(url, store):
    """The twin was made again; the ledger lags behind, and its tombstone is not there yet."""
    log = Log()
    order, again = command("a", "1", revision=2), twin("a", 1, created_at=5000)
    told(log, twin("a", 2), order)
    log.append(("twins", place("a")), "a", None, outbox(removed=[order["id"]], revision=3))
    told(log, again)
    log.before[MEANWHILE] = lambda: logged(log, commands=[order])
    report = asyncio.run(rebuild(log, url))
    assert entries(store) == {}
    check_index(store, {"a": again})
    assert report.ok


def test_command_removed_before_it_is_put_back_does_not_return(url, store):
    """Its tombstone came behind what was read first, and the twin is there again."""
    log = Log()
    order, again = command("a", "1", revision=2), twin("a", 1, created_at=5000)
    logged(log, twin("a", 2), commands=[order])

    def deleted_and_made_again():
        log.append(("twins", place("a")), "a", None, outbox(removed=[order["id"]], revision=3))
        told(log, again)

    log.before[MEANWHILE] = deleted_and_made_again

    async def run():
        # As the owner has left it, before anything is put back.
        await shown(url, again)
        return await rebuild(log, url)

    report = asyncio.run(run())
    assert entries(store) == {}
    check_index(store, {"a": again})
    assert report.ok


def test_old_commands_of_a_deleted_twin_do_not_return(url, store):
    """They ended days before, so the owner's book had forgotten them and the ledger has no tombstone."""
    log = Log()
    day = 86_400_000
    old = {"at": now() - 5 * day, "state": "succeeded"}
    again = twin("b", 1, created_at=now() - day)
    kept = command("b", "3", at=now() - 2 * day + day // 2, state="failed")
    orders = [command("a", "1", **old), command("b", "2", **old)]
    logged(log, twin("a", 1), twin("b", 1), commands=[*orders, kept])
    log.append(("twins", place("a")), "a", None)
    told(log, again)
    report = asyncio.run(rebuild(log, url))
    assert entries(store).keys() == {kept["id"]}
    assert (report.ok, report.twins, report.commands) == (True, 1, 1)


def test_commands_are_compared(url, store, monkeypatch):
    """One that is lost behind our back is missing, one that nobody knows is too many."""
    monkeypatch.setattr("twin.rebuild._SETTLE_S", 0)
    log = Log()
    lost, ended = command("a", "1"), command("a", "2", state="failed")
    logged(log, twin("a"), commands=[lost, ended])

    def damaged():
        store.delete(keys.command(lost["id"]))
        store.set(keys.command(command("a", "3")["id"]), b"{}")

    log.before[COMPARING] = damaged
    report = asyncio.run(rebuild(log, url))
    assert (report.ok, report.commands_missing, report.commands_extra) == (False, 1, 1)
    assert (report.missing, report.extra) == (0, 0)


# --- what Redis must not lose, and what it must not keep ---------------------------------------------


def test_state_of_the_same_revision_that_has_applied_more_stays(url, store):
    """Late telemetry counts and is no revision: the owner showed it behind what the log said first."""
    log = Log()
    before = twin("a", 5, applied={"telemetry": [0, 10], "outcomes": [0, 4]})
    newest = twin("a", 5, applied={"telemetry": [0, 11], "outcomes": [0, 4]}, late=1)
    logged(log, before)

    async def run():
        await shown(url, newest)
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"a": newest})
    assert (report.written, report.newer) == (0, 1)
    logged(log, newest)
    store.set(keys.twin("a"), store.get(keys.twin("a")).replace(b"[0,11]", b"[0,9]"))
    assert asyncio.run(rebuild(log, url)).written == 1
    check_index(store, {"a": newest})


def test_index_of_a_newer_document_is_put_right(url, store):
    """Of a twin that its owner goes on writing everything is there, orders and alarms among it."""
    log = Log()
    logged(log, twin("a", 1, signals={"speed": 3}))
    newer = twin("a", 2, signals={"speed": 90, "coolant_temp": 50}, seen=4, open=2, health="alarm")

    async def run():
        await shown(url, newer)
        store.zrem(keys.by("coolant_temp"), "a")
        store.zrem(keys.by(keys.OPEN_COMMANDS), "a")
        store.zadd(keys.by("speed"), {"a": 3})
        store.delete(keys.ALARMS, keys.having("fleet", "berlin"))
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"a": newer})
    assert (report.written, report.newer) == (0, 1)


def test_numbers_stay_within_their_lag_for_the_owner_beside(url, store):
    """It moves a number when the document's has left the one that it wrote: that one is still there."""
    log = Log()
    lag = keys.LAG["coolant_temp"]
    states = [twin("a", n, signals={"coolant_temp": 90 + at * lag}, seen=1) for n, at in
              enumerate([0, 0.7, -0.7], 1)]  # fmt: skip

    async def run():
        async with Owner(url, log=log) as owner:
            await owner.claim()
            await owner.write(states[0])
            await owner.write(states[1])
            assert (await rebuild(log, url)).ok
            await owner.write(states[2])

    asyncio.run(run())
    check_index(store, {"a": states[2]})


def test_state_that_came_while_reading_is_shown(url, store):
    """Whoever wrote it may have ended before it was shown, and nobody else is there."""
    log = Log()
    logged(log, twin("a", 1))
    log.before[MEANWHILE] = lambda: logged(log, twin("a", 2, fleet="munich"))
    assert asyncio.run(rebuild(log, url)).ok
    check_index(store, {"a": twin("a", 2, fleet="munich")})


def test_what_is_none_of_ours_is_replaced_or_removed(url, store):
    """Values that are no document or entry, names that are no ids or no text, documents not listed."""
    log = Log()
    twins = [twin(name, 3) for name in ("a", "b", "c", "d")]
    order = command("a", "1")
    logged(log, *twins, commands=[order])
    for name, value in (("a", "rubbish"), ("b", "[1,2]\n{}"), ("c", '[1,"x"\n'), ("ghost", "?")):
        store.set(keys.twin(name), value)
    store.rpush(keys.twin("d"), "no", "text")
    store.set(keys.twin("unlisted"), store.get(keys.twin("a")))
    store.set(b"twin:\xff", "?")
    store.zadd(keys.IDS, {b"\xfe": 0, "ghost": 0})
    store.set(keys.command(order["id"]), '{"epoch":"?","updated_at":[]}')
    for name in ("nothing", "a.short", ".", "ghost.1"):
        store.set(keys.command(name), "?")
    store.set(b"command:\xff", "?")
    store.rpush(keys.command("b.list"), "no", "text")
    store.zadd(keys.commands("a"), {"a.gone": 1})
    store.zadd(keys.RECENT_COMMANDS, {"a.gone": 1})
    report = asyncio.run(rebuild(log, url))
    check_index(store, {one["vehicle_id"]: one for one in twins})
    assert entries(store) == {order["id"]: order}
    assert store.keys("twin:*unlisted") == store.keys("twin:*ghost") == []
    assert store.zrange(keys.commands("a"), 0, -1) == [order["id"].encode()]
    assert store.zrange(keys.RECENT_COMMANDS, 0, -1) == [order["id"].encode()]
    assert (report.ok, report.extra, report.commands_extra) == (True, 0, 0)


def test_twin_whose_newest_record_is_unreadable_is_left_alone(url, store):
    """What cannot be read is no reason to remove what an owner has shown, nor its commands."""
    log = Log()
    one, order = twin("a", 3), command("a", "1")
    log.append(("twins", place("a")), "a", b"{}")

    async def run():
        await shown(url, one, commands=[order])
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"a": one})
    assert entries(store) == {order["id"]: order}
    assert (report.ok, report.unreadable, report.removed) == (False, 1, 0)


def start(kafka, url, *arguments, program=("-m", "twin")):
    return subprocess.run(
        [sys.executable, *program, "rebuild-view", *arguments],
        env={**os.environ, "KAFKA_BOOTSTRAP": kafka, "REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_process_rebuilds_from_kafka(kafka, url, store):
    """`python -m twin rebuild-view --json` shows what the topics have, and prints one JSON line."""
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    # A worker of another test may have owned these partitions: only a later owner's word counts.
    epoch = int(time.time()) + 3600
    made = [
        twin(f"rebuilt-{n}", 3, epoch=epoch, seen=n + 1, signals={"speed": n}) for n in range(30)
    ]
    order, strange = command("rebuilt-1", "1", epoch=epoch), command("rebuilt-1", "2")
    for one in made:
        name = one["vehicle_id"]
        partition = partition_of(name.encode(), 12)
        producer.produce("twins", document(one), name, partition)
    for entry in (order, strange):
        key = f"rebuilt-1/{entry['id']}"
        producer.produce("ledger", orjson.dumps(entry), key, partition_of(b"rebuilt-1", 12))
    assert producer.flush(30) == 0
    done = start(kafka, url, "--json")
    report = orjson.loads(done.stdout)
    # Other tests may have left twins in the same topics, even unreadable ones.
    assert (report["missing"], report["extra"]) == (0, 0), done.stderr
    assert done.returncode == (0 if report["ok"] else 1)
    assert "partition 12 of 12" in done.stderr
    assert store.zcard(keys.IDS) == report["twins"] >= 30
    for one in made:
        value = store.get(keys.twin(one["vehicle_id"]))
        assert keys.document_of(value) == document(one)
        assert store.sismember(keys.having("fleet", "berlin"), one["vehicle_id"])
    assert store.exists(keys.command(order["id"]))
    # An entry that no owner signed is none.
    assert not store.exists(keys.command(strange["id"]))
    assert report["strange"] >= 1


@pytest.mark.parametrize("away", ["kafka", "redis"])
def test_what_does_not_answer_is_named(kafka, url, away):
    """One sentence and exit code 1; no stack trace."""
    nowhere = "127.0.0.1:1"
    addresses = (nowhere, url) if away == "kafka" else (kafka, f"redis://{nowhere}/0")
    # The same without the ten seconds that Kafka is waited for.
    impatient = (
        "import sys; from twin import __main__, rebuild;"
        " rebuild._REACH_S = 1; sys.exit(__main__.main())"
    )
    done = start(*addresses, program=("-c", impatient))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert {"kafka": "Kafka is not usable", "redis": "Redis does not answer"}[away] in done.stderr
