"""What the deep tests start: own stacks, and our processes one by one."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.processes import Process
from tests.stacks import make_module_stack, make_stack
from twin.local.data import Endpoints

__all__ = ["make_module_stack", "make_stack"]

StartProcess = Callable[..., Process]


def _start_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartProcess]:
    """`start_process(name, endpoints, **environment)` starts one and waits until it is ready.

    What is still alive at the end is stopped, the last started first.
    """
    folder = tmp_path_factory.mktemp("processes")
    with ExitStack() as started:

        def start(name: str, endpoints: Endpoints, **told: str) -> Process:
            process = Process(name, endpoints, folder, **told)
            started.callback(lambda: process.child and process.stop())
            return process.start().ready()

        yield start


start_process = pytest.fixture(_start_process, name="start_process")
start_module_process = pytest.fixture(_start_process, name="start_module_process", scope="module")
