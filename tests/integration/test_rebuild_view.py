"""The read model made anew from the changelogs: on a real Redis, over a log in memory and over Kafka."""

import asyncio
import os
import subprocess
import sys
from collections import defaultdict

import orjson
import pytest
import redis
from confluent_kafka import Producer

from tests.redis_view import PARTITIONS, Owner, check_index, command, document, place, twin
from twin.changelog import Newest
from twin.rebuild import Rebuild
from twin.view.repair import Repair
from twin.wire import keys
from twin.wire.partition import partition_of

pytestmark = pytest.mark.integration


class Log:
    """Changelogs in memory; reads them as `twin.changelog.Reader` does."""

    def __init__(self):
        self.records = defaultdict(list)
        self.reads = 0
        self.before_read = {}
        """Number of a read (from 1) -> what happens just before it."""

    def append(self, where, key, value):
        self.records[where].append((key, value))

    def read(self, tails, _wanted):
        self.reads += 1
        self.before_read.pop(self.reads, lambda: None)()
        for where, tail in tails.items():
            for offset, (key, value) in enumerate(self.records[where][tail.end :], tail.end):
                tail.newest[key] = Newest(value, {}, offset)
            tail.end = len(self.records[where])
        return True


@pytest.fixture
def url(redis_url):
    """A database of this module's own, empty."""
    return redis_url.rpartition("/")[0] + "/7"


@pytest.fixture
def store(url):
    with redis.from_url(url) as client:
        client.flushdb()
        yield client
        client.flushdb()


async def rebuild(log, url):
    repair = Repair(url)
    try:
        return await Rebuild(log, repair, PARTITIONS).run()
    finally:
        await repair.close()


def logged(log, *twins, commands=()):
    for one in twins:
        log.append(("twins", place(one["vehicle_id"])), one["vehicle_id"], document(one))
    for one in commands:
        key = f"{one['vehicle_id']}/{one['id']}"
        log.append(("ledger", place(one["vehicle_id"])), key, orjson.dumps(one))


def test_empty_redis_gets_what_the_log_has(url, store):
    """The newest of each twin and command, with the whole index; deleted ones are not in it."""
    log = Log()
    kept, ended = command("a", "1"), command("a", "2", state="failed")
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

    log.before_read[PARTITIONS + 1] = deleted
    log.before_read[PARTITIONS + 2] = lambda: logged(log, again)

    async def run():
        async with Owner(url) as owner:
            await owner.claim()
            await owner.write(again, deleted=["b"])
        return await rebuild(log, url)

    report = asyncio.run(run())
    check_index(store, {"b": again, "c": twin("c", 1)})
    assert report.ok


def test_rebuild_goes_on_beside_an_owner_at_work(url, store):
    """Changes, deletions and new twins in between: in the end Redis has what both agree on."""
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
                    await owner.write(
                        twin(name, 1 + n, created_at=1000 + n, presence=state, signals={"speed": n})
                    )
            assert n > 5
            return running.result(), {v: t for p in owner.twins.values() for v, t in p.items()}

    report, twins = asyncio.run(run())
    check_index(store, twins)
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


def start(kafka, url, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "twin", "rebuild-view", *arguments],
        env={**os.environ, "KAFKA_BOOTSTRAP": kafka, "REDIS_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_process_rebuilds_from_kafka(kafka, url, store):
    """`python -m twin rebuild-view --json` shows what the topics have, and prints one JSON line."""
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    made = [twin(f"rebuilt-{n}", 3, seen=n + 1, signals={"speed": n}) for n in range(30)]
    order, strange = command("rebuilt-1", "1", epoch=1), command("rebuilt-1", "2")
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
    done = start(*addresses)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert {"kafka": "Kafka is not usable", "redis": "Redis does not answer"}[away] in done.stderr
