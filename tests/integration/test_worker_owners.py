"""Law 5 and several workers on real Kafka and Redis: partitions move, and a former owner cannot win."""

import pytest

from tests.workers import PARTITIONS, make_module_stack, scene, servers, share

__all__ = ["make_module_stack", "scene", "servers"]

pytestmark = pytest.mark.integration

ALL = list(range(PARTITIONS))


def begins_again(former, owner, scene, load):
    """The former owner, from the copy that it had when another one took over, holds all once more."""
    if not former.ended():
        former.kill()
    former.start()
    scene.until(former.serves, load)
    assert owner.stop() == 0, owner.words
    scene.until(lambda: former.serves() == ALL, load)
    assert sum(event["from_copy"] for event in former.events("restored")) > 0
    before = load.records
    scene.until(lambda: load.records > before + 200, load)


def deep(*values):
    return pytest.param(*values, marks=pytest.mark.deep)


@pytest.mark.parametrize(
    ("point", "store"),
    [
        ("changelog produced", "memory"),
        ("changelog", "memory"),
        deep("outputs produced", "memory"),
        deep("changelog produced", "rocksdb"),
        deep("changelog", "rocksdb"),
        deep("copy", "rocksdb"),
        deep("outputs produced", "rocksdb"),
    ],
)
def test_an_owner_that_froze_in_the_middle_of_a_batch_cannot_win(scene, point, store):
    """Before its batch is durable, before it is told, and with its outputs on their way."""
    former, owner = scene.worker("former", STORE=store), scene.worker("owner", STORE=store)
    with scene.load() as load:
        former.start(point, 6, "STOP")
        former.frozen(load)
        owner.start()
        scene.until(lambda: owner.serves() == ALL, load)
        before = load.records
        scene.until(lambda: load.records > before + 300, load)
        former.wake()
        scene.until(former.found_out, load)
        if store == "rocksdb":
            begins_again(former, owner, scene, load)
    scene.settle()
    scene.check_soon()


@pytest.mark.deep
@pytest.mark.parametrize("store", ["memory", "rocksdb"])
def test_an_owner_that_froze_under_load_cannot_win(scene, store):
    """Wherever it is then: 5,000 records; it sleeps through about half of them."""
    former, owner = scene.worker("former", STORE=store), scene.worker("owner", STORE=store)
    with scene.load(plain=30) as load:
        former.start()
        scene.until(lambda: former.serves() == ALL and load.records > 1500, load)
        former.freeze()
        owner.start()
        scene.until(lambda: owner.serves() == ALL and load.records > 3500, load)
        former.wake()
        scene.until(lambda: former.found_out() and load.records > 5000, load)
        if store == "rocksdb":
            begins_again(former, owner, scene, load)
    scene.settle()
    scene.check_soon()


@pytest.mark.parametrize(
    ("point", "count", "store"),
    [
        deep("read", 1, "memory"),
        deep("read", 2, "memory"),
        ("restored", 1, "memory"),
        deep("read", 1, "rocksdb"),
        deep("restored", 1, "rocksdb"),
    ],
)
def test_what_a_former_owner_does_while_its_partitions_are_taken_over_is_known_or_late(
    scene, point, count, store
):
    """Its write comes in front of the new owner's fence or behind it, and nothing else is behind it."""
    told = {"SESSION_TIMEOUT_S": "5", "STORE": store}
    former, owner = scene.worker("former", **told), scene.worker("owner", **told)
    with scene.load() as load:
        former.start("changelog produced", 6, "STOP")
        former.frozen(load)
        owner.start(point, count, "STOP")
        owner.frozen(load)
        before = scene.ends(("twins",))
        former.wake()
        scene.until(lambda: scene.ends(("twins",)) > before, load)
        scene.until(lambda: former.found_out() or former.events("revoked"), load)
        owner.wake()
        scene.until(former.found_out, load)
    scene.settle()
    scene.check_soon()


def test_workers_come_and_go_and_are_killed_and_nothing_is_lost_or_applied_twice(scene):
    """One is killed, one is added, one is stopped; each partition's pause is published."""
    first, second, third = (scene.worker(name) for name in "abc")

    with scene.load() as load:
        first.start()
        second.start()
        scene.until(lambda: share(ALL, first, second), load)
        before = load.records
        scene.until(lambda: load.records > before + 200, load)
        first.kill()
        scene.until(lambda: second.serves() == ALL, load)
        third.start()
        scene.until(lambda: share(ALL, second, third), load)
        assert second.stop() == 0, second.words
        scene.until(lambda: third.serves() == ALL, load)
        before = load.records
        scene.until(lambda: load.records > before + 200, load)
    scene.settle()
    scene.check()
    pauses = third.labelled("cartwin_twin_pause_seconds", "partition")
    assert pauses.keys() == {str(partition) for partition in ALL}
    assert len(third.events("resumed")) >= 2
    assert all(seconds > 0 for seconds in pauses.values())
    assert third.stop() == 0, third.words
