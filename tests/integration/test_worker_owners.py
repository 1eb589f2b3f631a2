"""Law 5 and several workers on real Kafka and Redis: partitions move, and a former owner cannot win."""

import pytest

from tests.workers import PARTITIONS, make_module_stack, scene, servers

__all__ = ["make_module_stack", "scene", "servers"]

pytestmark = pytest.mark.integration

ALL = list(range(PARTITIONS))


def over(worker):
    """A former owner that woke up has ended by itself, or is a member again."""
    if worker.ended():
        assert worker.running.exit_code() == 1, worker.words
        assert worker.events("cannot go on")[-1]["error"], worker.words
        return True
    return len(worker.events("resumed")) > 1


@pytest.mark.parametrize(
    "point",
    ["changelog produced", "changelog", pytest.param("outputs produced", marks=pytest.mark.deep)],
)
def test_an_owner_that_froze_in_the_middle_of_a_batch_cannot_win(scene, point):
    """Before its batch is durable, before it is told, and with its outputs on their way."""
    former, owner = scene.worker("former"), scene.worker("owner")
    with scene.load() as load:
        former.start(point, 6, "STOP")
        former.frozen(load)
        owner.start()
        scene.until(lambda: owner.serves() == ALL, load)
        before = load.records
        scene.until(lambda: load.records > before + 300, load)
        former.wake()
        scene.until(lambda: over(former), load)
    scene.settle()
    scene.check_soon()


def test_an_owner_that_froze_under_load_cannot_win(scene):
    """5,000 records; it sleeps through about half of them."""
    former, owner = scene.worker("former"), scene.worker("owner")
    with scene.load(plain=30) as load:
        former.start()
        scene.until(lambda: former.serves() == ALL and load.records > 1500, load)
        former.freeze()
        owner.start()
        scene.until(lambda: owner.serves() == ALL and load.records > 3500, load)
        former.wake()
        scene.until(lambda: over(former) and load.records > 5000, load)
    scene.settle()
    scene.check_soon()


@pytest.mark.parametrize(
    ("point", "count"),
    [("read", 1), pytest.param("read", 2, marks=pytest.mark.deep), ("restored", 1)],
)
def test_what_a_former_owner_does_while_its_partitions_are_taken_over_is_known_or_late(
    scene, point, count
):
    """Its write comes in front of the new owner's fence or behind it, and nothing else is behind it."""
    patience = {"SESSION_TIMEOUT_S": "5"}
    former, owner = scene.worker("former", **patience), scene.worker("owner", **patience)
    with scene.load() as load:
        former.start("changelog produced", 6, "STOP")
        former.frozen(load)
        owner.start(point, count, "STOP")
        owner.frozen(load)
        before = scene.ends(("twins",))
        former.wake()
        scene.until(lambda: scene.ends(("twins",)) > before, load)
        scene.until(lambda: over(former) or former.events("revoked"), load)
        owner.wake()
        scene.until(lambda: over(former), load)
    scene.settle()
    scene.check_soon()


def test_workers_come_and_go_and_are_killed_and_nothing_is_lost_or_applied_twice(scene):
    """One is killed, one is added, one is stopped; each partition's pause is published."""
    first, second, third = (scene.worker(name) for name in "abc")

    def share(*workers):
        served = [worker.serves() for worker in workers]
        return all(served) and sorted(p for parts in served for p in parts) == ALL

    with scene.load() as load:
        first.start()
        second.start()
        scene.until(lambda: share(first, second), load)
        before = load.records
        scene.until(lambda: load.records > before + 200, load)
        first.kill()
        scene.until(lambda: second.serves() == ALL, load)
        third.start()
        scene.until(lambda: share(second, third), load)
        assert second.stop() == 0, second.words
        scene.until(lambda: third.serves() == ALL, load)
        before = load.records
        scene.until(lambda: load.records > before + 200, load)
    scene.settle()
    scene.check()
    text = third.get("/metrics")[1]
    for partition in ALL:
        assert f'cartwin_twin_pause_seconds{{partition="{partition}"}}' in text
    pauses = [event["seconds"] for event in third.events("resumed")]
    assert len(pauses) >= 2
    assert all(seconds > 0 for seconds in pauses)
    assert third.stop() == 0, third.words
