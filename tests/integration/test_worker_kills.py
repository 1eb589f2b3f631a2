"""Law 4 on real Kafka and Redis: a worker killed at any step loses nothing and doubles nothing."""

import shutil
import time

import orjson
import pytest

from tests.worker_app import OWNING, TAKING_OVER
from tests.workers import PARTITIONS, make_module_stack, scene, servers
from twin import copy as store
from twin.copy import Copy
from twin.wire import topics

__all__ = ["make_module_stack", "scene", "servers"]

pytestmark = pytest.mark.integration


def kill_at(scene, store, points):
    """Under load, kill a worker at each of the points in turn, and let it come back each time."""
    worker = scene.worker("w", STORE=store)
    with scene.load() as load:
        for point, count in points:
            worker.start(point, count)
            worker.killed(load)
        worker.start()
    scene.settle()
    accounts = scene.check()
    assert worker.stop() == 0, worker.words
    return accounts


def test_a_worker_killed_after_every_step_in_turn_loses_and_doubles_nothing(scene):
    """One after the other, each where the one before has left, those of a takeover in between."""
    points = [(point, 2) for point in OWNING]
    points[4:4] = [(point, 1) for point in TAKING_OVER]
    accounts = kill_at(scene, "rocksdb", points)
    kinds = {car.kind for car in accounts.cars.values()}
    assert kinds == {
        "plain", "match", "cmd", "sent", "due", "gone", "again", "made", "ghost", "late",
        "stray", "alien",
    }  # fmt: skip


STEPS = [
    (point, store)
    for point in (*OWNING, *TAKING_OVER)
    for store in ("memory", "rocksdb")
    if (point, store) != ("copy", "memory")
]


WITHOUT_OUTPUTS = [
    (point, store)
    for point, store in STEPS
    if point in OWNING and "half" not in point and point not in ("outputs produced", "answered")
]
"""Those that telemetry comes to which changes nothing but counts."""


@pytest.mark.deep
@pytest.mark.parametrize(("point", "store"), STEPS)
def test_a_worker_killed_again_and_again_at_one_step(scene, store, point):
    """At the first, the third and the tenth time that it comes there."""
    counts = (1, 1, 1) if point in TAKING_OVER else (1, 3, 10, 3, 1, 10)
    kill_at(scene, store, [(point, count) for count in counts])


@pytest.mark.parametrize(
    ("point", "store"),
    [
        ("changelog", "rocksdb"),
        *(
            pytest.param(*step, marks=pytest.mark.deep)
            for step in WITHOUT_OUTPUTS
            if step != ("changelog", "rocksdb")
        ),
    ],
)
def test_a_last_record_that_was_no_news_is_counted_once_over_a_kill(scene, point, store):
    """Of a car whose last record is late, and of one whose last is a duplicate."""
    late, twice = (f"{scene.prefix}-plain-{number}" for number in range(2))
    load = scene.load()
    for number in range(4):
        load.telemetry(late, number)
        load.telemetry(twice, number)
    load.flush()
    worker = scene.worker("w", STORE=store)
    worker.start()
    scene.until(worker.serves, load)
    scene.settle()
    worker.kill()
    worker.start(point)
    scene.until(worker.serves, load)
    load.telemetry(late, 2)
    load.telemetry(twice, 3)
    load.flush()
    worker.killed(load)
    worker.start()
    scene.until(worker.serves, load)
    scene.settle()
    accounts = scene.check()
    counts = {car: accounts.twins[car].fields["counts"] for car in (late, twice)}
    assert counts == {late: {"late": 1, "duplicates": 0}, twice: {"late": 0, "duplicates": 1}}
    assert worker.stop() == 0, worker.words


PLACES = [(topic, p) for topic in (topics.TWINS, topics.LEDGER) for p in range(PARTITIONS)]


def places_of(folder):
    """Where a stopped worker's copy is to be read on from."""
    copy = Copy(folder)
    offsets = {place: copy.tail(place, 0, 10**9).end for place in PLACES}
    copy.close()
    return offsets


def spoil(folder, how):
    """Make a stopped worker's copy useless."""
    if how == "broken":
        for file in folder.iterdir():
            if file.name != "LOCK":
                file.write_bytes(b"\0broken\n")
    elif how == "gone":
        shutil.rmtree(folder)
    else:
        offsets = places_of(folder)
        copy = Copy(folder)
        for place, offset in offsets.items():
            told = [10**9, int(time.time()), 1] if how == "of another cluster" else [offset, 0, 1]
            copy._db[store._PLACE + store._prefix(place)] = orjson.dumps(told)
        copy.close()


@pytest.mark.parametrize(
    "ways",
    [
        ("warm", "broken"),
        # Each by itself without servers: tests/unit/test_worker_copy.py.
        pytest.param(("warm", "too old", "of another cluster", "gone"), marks=pytest.mark.deep),
    ],
    ids="-".join,
)
def test_a_warm_restart_reads_only_what_is_new_and_a_useless_copy_is_not_used(scene, ways):
    """Stopped under load each time; the accounts are right with and without the copy."""
    worker = scene.worker("w", STORE="rocksdb")
    folder = scene.folder / f"{worker.name}-store"
    changelogs = (topics.TWINS, topics.LEDGER)
    restored, new, whole = {}, {}, {}
    with scene.load() as load:
        worker.start()
        for how in ways:
            scene.until(worker.serves, load)
            # What is committed the copy hears of with a batch behind it.
            scene.until_committed(load)
            enough = load.records + 300
            scene.until(lambda least=enough: load.records > least, load)
            assert worker.stop() == 0, worker.words
            whole[how] = scene.ends(changelogs)
            new[how] = whole[how] - sum(places_of(folder).values())
            if how != "warm":
                spoil(folder, how)
            worker.start()
            (restored[how],) = scene.until(lambda: worker.events("restored"), load)
    scene.settle()
    scene.check()
    assert worker.stop() == 0, worker.words
    warm = restored.pop("warm")
    assert warm["from_copy"] >= warm["twins"] + warm["commands"] > 20
    # The new owner's fences come on top.
    assert warm["records"] == new["warm"] + PARTITIONS < whole["warm"]
    for how, found in restored.items():
        assert (found["from_copy"], found["records"]) == (0, whole[how] + PARTITIONS), how
