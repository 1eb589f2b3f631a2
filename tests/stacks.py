"""Own stacks for tests that kill, freeze or fill a server; `twin.local` starts them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from twin.local import mqtt
from twin.local.data import Endpoints
from twin.local.options import FREE_PORTS, Options
from twin.local.stack import Stack

MakeStack = Callable[..., tuple[Stack, Endpoints]]


def infrastructure(**options: Any) -> Options:
    """Options of a stack on free ports, without our processes unless `options` names them."""
    return Options(**{"ports": FREE_PORTS, "processes": (), **options})


def need_mosquitto() -> None:
    """Skip the test where Mosquitto is not installed."""
    if mqtt.mosquitto_binary(os.environ) is None:
        pytest.skip(
            "Mosquitto is not installed (apt-get install mosquitto): its tests did not run."
        )


def _make_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakeStack]:
    """Start an own stack: `make_stack(**fields of Options)` returns it and its endpoints.

    Free ports, infrastructure only and an own data directory unless said otherwise; it is stopped
    at the end of the test (of the module: `make_module_stack`); stopping it earlier is fine.
    """
    with ExitStack() as started:

        def make(**options: Any) -> tuple[Stack, Endpoints]:
            options.setdefault("data_dir", tmp_path_factory.mktemp("own"))
            stack = Stack(infrastructure(**options))
            started.callback(stack.stop)
            return stack, stack.start()

        yield make


make_stack = pytest.fixture(_make_stack, name="make_stack")
make_module_stack = pytest.fixture(_make_stack, name="make_module_stack", scope="module")
