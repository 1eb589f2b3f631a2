"""The laws on real Kafka by chance: any records in any order, workers killed, stopped, added, frozen.

What comes of it is compared with the pure fold of the log (`tests/worker_replay.py`). The seed says what
is sent and what is done to the workers; when, the machine says.
"""

import random

import pytest

from tests.worker_chance import POLICY, SETTINGS, Chance, context
from tests.worker_replay import Replay
from tests.workers import PARTITIONS, Scene, Worker, make_module_stack, scene, servers

__all__ = ["make_module_stack", "scene", "servers"]

pytestmark = pytest.mark.integration

ALL = set(range(PARTITIONS))
MOST_WORKERS = 3


class Turns:
    """Workers of a scene that things happen to."""

    def __init__(self, scene: Scene, load: Chance, chance: random.Random, store: str) -> None:
        self._scene = scene
        self._load = load
        self._chance = chance
        policy = scene.folder / "policy.toml"
        policy.write_text(POLICY)
        # Small batches: a kill then hits the middle of something.
        self._told = {
            **SETTINGS, "STORE": store, "POLICY_FILE": str(policy), "BATCH_RECORDS": "20"
        }  # fmt: skip
        self.workers: list[Worker] = []
        self.log: list[str] = []

    def add(self) -> None:
        """One more begins."""
        worker = self._scene.worker(f"w{len(self._scene.workers)}", **self._told)
        self.workers.append(worker.start())
        self.log.append(f"{worker.name} is added")

    def turn(self) -> None:
        """After some records something happens to one of them, in one of four turns wherever it is."""
        self.revive()
        chance = self._chance
        least, anywhere = self._load.records + chance.randrange(100), chance.random() < 0.25
        self._scene.until(
            lambda: self._load.records > least and (anywhere or self._serving()), self._load
        )
        what = chance.choice(("kill", "kill", "stop", "leave", "add", "freeze"))
        worker = chance.choice(self._serving() or self.workers)
        if what == "kill":
            self.log.append(f"{worker.name} is killed")
            worker.kill()
            worker.start()
        elif what == "stop":
            self._stop(worker)
            worker.start()
        elif what == "freeze" and len(self._serving()) > 1:
            self._freeze(worker)
        elif len(self.workers) == MOST_WORKERS or (what == "leave" and len(self.workers) > 1):
            self._stop(worker)
            self.workers.remove(worker)
        else:
            self.add()

    def revive(self) -> None:
        """One that the machine held up for a session finds that it is a former owner, and ends."""
        for worker in self.workers:
            if worker.ended():
                assert worker.found_out()
                self.log.append(f"{worker.name} has ended: {worker.events('cannot go on')[-1]}")
                worker.start()

    def _serving(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.serves()]

    def _stop(self, worker: Worker) -> None:
        self.log.append(f"{worker.name} is stopped")
        # One that has only just begun knows no signals.
        expected = (0,) if worker.serves() else (0, -15)
        assert worker.stop() in expected, worker.words

    def _freeze(self, worker: Worker) -> None:
        """Until the others have all, and it finds out."""
        self.log.append(f"{worker.name} is frozen")
        served = len(worker.events("resumed"))
        worker.freeze()
        others = [other for other in self.workers if other is not worker]
        self._scene.until(
            lambda: {p for other in others for p in other.serves()} == ALL, self._load
        )
        worker.wake()
        self._scene.until(lambda: worker.found_out(served), self._load)


def play(scene, seed, turns, store="memory", cars=8):
    """A load and so many turns; the accounts, which must be right."""
    endpoints, chance = scene.endpoints, random.Random(seed)
    load = Chance(endpoints.kafka, endpoints.redis, scene.prefix, seed, cars)
    game = Turns(scene, load, chance, store)
    decided_by = context(PARTITIONS)
    try:
        with load:
            game.add()
            game.add()
            for _ in range(turns):
                game.turn()
            game.revive()
        scene.settle()
        return scene.check_soon(
            lambda: Replay(endpoints.kafka, endpoints.redis, scene.prefix, decided_by)
        )
    except BaseException as error:
        error.add_note(f"seed {seed}: {', '.join(game.log)}")
        raise


def test_whatever_comes_and_happens_the_twins_are_the_fold_of_the_log(scene):
    """Some turns with eight cars."""
    accounts = play(scene, seed=1, turns=8)
    assert len(accounts.cars) == 8
    kinds = {change.fields["kind"] for car in accounts.cars.values() for change in car.changes}
    assert kinds > {"created", "presence", "config", "desired", "command"}


@pytest.mark.deep
@pytest.mark.parametrize("store", ["memory", "rocksdb"])
@pytest.mark.parametrize("seed", [2, 3, 4, random.SystemRandom().randrange(5, 10**6)])
def test_whatever_comes_and_happens_for_long_the_twins_are_the_fold_of_the_log(scene, seed, store):
    """Many turns with twenty cars; one seed is new each time."""
    accounts = play(scene, seed, turns=30, store=store, cars=20)
    assert len(accounts.cars) == 20
    told = {change.fields["kind"] for car in accounts.cars.values() for change in car.changes}
    # A car whose word comes after its command's end is rarer than that.
    assert told >= {
        "created", "deleted", "attributes", "presence", "config", "desired", "health", "alert",
        "command", "decision",
    }  # fmt: skip
