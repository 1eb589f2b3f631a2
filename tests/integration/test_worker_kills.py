"""Law 4 on real Kafka and Redis: a worker killed at any step loses nothing and doubles nothing."""

import pytest

from tests.stacks import make_module_stack
from tests.worker_app import OWNING
from tests.workers import Scene

__all__ = ["make_module_stack"]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def servers(make_module_stack):
    """Kafka with 4 partitions and Redis, for the workers of this module alone."""
    _, endpoints = make_module_stack(partitions=4, mqtt="amqtt")
    return endpoints


@pytest.fixture
def scene(servers, tmp_path, request):
    made = Scene(servers, tmp_path, prefix=f"t{abs(hash(request.node.nodeid)) % 10**6}")
    yield made
    made.close()


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
    """One after the other, each where the one before has left."""
    accounts = kill_at(scene, "rocksdb", [(point, 2) for point in OWNING])
    kinds = {car.kind for car in accounts.cars.values()}
    assert kinds == {"plain", "match", "cmd", "sent", "due", "gone", "again", "made", "ghost"}
