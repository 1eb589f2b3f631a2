"""The read model made anew beside real workers: one that froze, and one that goes on under load."""

import os
import subprocess
import sys

import orjson
import pytest
import redis

from tests.processes import until
from tests.redis_view import check_index
from tests.worker_records import read
from tests.workers import make_module_stack, scene, servers
from twin.wire import keys

__all__ = ["make_module_stack", "scene", "servers"]

pytestmark = pytest.mark.integration


@pytest.fixture
def store(servers):
    with redis.from_url(servers.redis) as client:
        yield client


def rebuild(servers):
    """`python -m twin rebuild-view --json`, over what there is."""
    done = subprocess.run(
        [sys.executable, "-m", "twin", "rebuild-view", "--json"],
        env={**os.environ, "KAFKA_BOOTSTRAP": servers.kafka, "REDIS_URL": servers.redis},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    return orjson.loads(done.stdout)


def test_command_of_an_owner_that_froze_before_the_ledger_heard_of_it_stays(scene, servers, store):
    """It was answered and shown. And when Redis has lost it, it is shown again, while all are asleep."""
    worker, load = scene.worker("w"), scene.load()
    car = f"{scene.prefix}-car"
    worker.start("answered", 1, "STOP")
    load.telemetry(car, 1)
    load.flush()
    until(lambda: worker.check() and store.exists(keys.twin(car)), lambda: worker.words)
    command = load._command(car, 0)
    load.ask(car, "command", command)
    load.flush()
    worker.frozen(load)
    shown = store.get(keys.command(command["id"]))
    assert orjson.loads(shown)["state"] == "queued"
    assert not [r for r in read(servers.kafka, ["ledger"]) if r.key.startswith(f"{car}/")]
    report = rebuild(servers)
    assert store.get(keys.command(command["id"])) == shown
    assert (report["ok"], report["commands_removed"]) == (True, 0), report
    store.delete(keys.command(command["id"]), keys.commands(car), keys.twin(car))
    report = rebuild(servers)
    assert report["ok"], report
    assert orjson.loads(store.get(keys.command(command["id"]))) == orjson.loads(shown)
    assert store.zrange(keys.commands(car), 0, -1) == [command["id"].encode()]
    worker.wake()
    scene.until(lambda: worker.ended() or worker.found_out(), load)
    if worker.ended():
        worker.start()
    scene.settle()
    (entry,) = {
        r.key: r.fields for r in read(servers.kafka, ["ledger"]) if r.key.startswith(f"{car}/")
    }.values()
    assert entry["state"] == "queued"
    until(
        lambda: (
            orjson.loads(store.get(keys.command(command["id"])) or b"{}").get("state") == "queued"
        ),
        "the command in Redis",
    )
    assert worker.stop() == 0, worker.words


def test_view_is_made_anew_under_load(scene, servers, store):
    """Whole and damaged, while commands are in flight and twins come and go."""
    worker = scene.worker("w")

    def damage():
        gone = [*store.keys("twin:*")[::2], *store.keys("command:*")[::2]]
        gone += [*store.keys("is:*")[::2], *store.keys("by:*")[::2], *store.keys("commands:*")[::2]]
        if gone:
            store.delete(*gone)
        store.zadd(keys.count("fleet"), {"nobody": 9})

    with scene.load() as load:
        worker.start()
        for step in (lambda: None, damage):
            enough = load.records + 300
            scene.until(lambda least=enough: worker.serves() and load.records > least, load)
            step()
            rebuild(servers)
            load.check()
    scene.settle()
    scene.check_soon()
    report = rebuild(servers)
    assert report["ok"], report
    scene.check()
    names = [raw.decode().partition(":")[2] for raw in store.keys("twin:*")]
    documents = {v: keys.document_of(store.get(keys.twin(v))) for v in names}
    check_index(store, {v: orjson.loads(value) for v, value in documents.items()})
    assert worker.stop() == 0, worker.words
