"""Real servers for integration tests, started through twin.local when a test first asks for them.

`kafka`, `redis_url`, `mosquitto`, `amqtt` and `hivemq` are shared by the whole session: a test keeps
apart by its own keys, groups, client ids and vehicle ids. One that kills or fills a server makes its
own with `make_stack`.
"""

from collections.abc import Iterator

import pytest

from tests.stacks import infrastructure, make_stack, need_mosquitto
from twin.local.data import Endpoints
from twin.local.options import External
from twin.local.stack import Stack

__all__ = ["make_stack"]


@pytest.fixture(scope="session")
def shared_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoints]:
    """Kafka, Redis and amqtt without our processes."""
    stack = Stack(infrastructure(data_dir=tmp_path_factory.mktemp("shared"), mqtt="amqtt"))
    endpoints = stack.start()
    yield endpoints
    stack.stop()


@pytest.fixture(scope="session")
def kafka(shared_stack: Endpoints) -> str:
    """Bootstrap address of a Kafka 4.3.1 that has every topic of the catalogue, 12 partitions."""
    return shared_stack.kafka


@pytest.fixture(scope="session")
def redis_url(shared_stack: Endpoints) -> str:
    """URL of an empty Redis."""
    return shared_stack.redis


@pytest.fixture(scope="session")
def amqtt(shared_stack: Endpoints) -> str:
    """URL of an amqtt broker (MQTT 3.1.1)."""
    return shared_stack.mqtt[0]


@pytest.fixture(scope="session")
def mosquitto(shared_stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Mosquitto broker; skips where Mosquitto is not installed."""
    need_mosquitto()
    yield from _broker("mosquitto", shared_stack, tmp_path_factory)


@pytest.fixture(scope="session")
def hivemq(shared_stack: Endpoints, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a HiveMQ CE broker."""
    yield from _broker("hivemq", shared_stack, tmp_path_factory)


def _broker(
    kind: str, shared_stack: Endpoints, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    others = External(kafka=shared_stack.kafka, redis=shared_stack.redis)
    data_dir = tmp_path_factory.mktemp(kind)
    stack = Stack(infrastructure(data_dir=data_dir, mqtt=kind, external=others))
    endpoints = stack.start()
    yield endpoints.mqtt[0]
    stack.stop()
