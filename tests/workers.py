"""Twin workers that end or freeze at a point of their work, on the servers of a stack.

`Worker` is `tests/worker_app.py` as a process; `Scene` has the stack, a load and the accounts.
"""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import orjson
import pytest

from tests.processes import Process, until
from tests.stacks import MakeStack, make_module_stack
from tests.worker_accounts import Accounts
from tests.worker_load import Load
from tests.worker_records import Progress
from twin.local.data import Endpoints
from twin.local.process import Child, spawn, tail

__all__ = ["PARTITIONS", "Scene", "Worker", "make_module_stack", "scene", "servers", "share"]

APP = Path(__file__).parent / "worker_app.py"
SESSION_S = 2.0
"""After this long a worker that is not heard of is not one any more."""


class Worker(Process):
    """A twin worker under a name of its own, with small batches so that there are many."""

    def __init__(self, name: str, endpoints: Endpoints, folder: Path, **told: str) -> None:
        settings = {
            "WORKER_ID": name,
            "BATCH_RECORDS": "50",
            "SESSION_TIMEOUT_S": str(SESSION_S),
            "STORE_DIR": str(folder / f"{name}-store"),
            # No deadline comes but those that the load makes.
            "STALE_AFTER_S": "36000",
            "OVERDUE_AFTER_S": "36000",
            "PYTHONPATH": str(APP.parents[1]),
        }
        super().__init__("worker", endpoints, folder, **{**settings, **told})
        self.name = name

    def start(self, point: str = "", count: int = 1, how: str = "KILL") -> "Worker":
        """Start it, to be stopped at the `count`-th time that it comes to `point`."""
        self.starts += 1
        log = self._folder / f"{self.name}-{self.starts}.log"
        hooks = [point, str(count), how] if point else []
        argv = [sys.executable, str(APP), *hooks]
        self.child = spawn(self.name, argv, self._environment, log)
        return self

    @property
    def running(self) -> Child:
        """The process that was started last."""
        assert self.child is not None
        return self.child

    def killed(self, load: Load) -> None:
        """Wait until it has ended itself by SIGKILL."""
        until(lambda: load.check() and self.running.exit_code() is not None, lambda: self.words)
        assert self.running.exit_code() == -signal.SIGKILL, self.running.obituary()

    def frozen(self, load: Load) -> None:
        """Wait until it has stopped itself by SIGSTOP."""
        until(lambda: load.check() and self.check() and self.state == "T", lambda: self.words)

    def freeze(self) -> None:
        """Stop it by SIGSTOP wherever it is."""
        os.kill(self.running.pid, signal.SIGSTOP)

    def wake(self) -> None:
        """Let it go on."""
        os.kill(self.running.pid, signal.SIGCONT)

    def ended(self) -> bool:
        """Whether it has ended."""
        return self.running.exit_code() is not None

    def found_out(self, served: int = 1) -> bool:
        """A former owner that woke up has ended by itself, or is a member again.

        `served`: how often it had begun to serve before.
        """
        if self.ended():
            assert self.running.exit_code() == 1, self.words
            assert self.events("cannot go on")[-1]["error"], self.words
            return True
        return len(self.events("resumed")) > served

    def labelled(self, name: str, label: str) -> dict[str, float]:
        """A metric by the values of its one label."""
        beginning = f'{name}{{{label}="'
        return {
            line.split('"')[1]: float(line.rpartition(" ")[2])
            for line in self.get("/metrics")[1].splitlines()
            if line.startswith(beginning)
        }

    def serves(self) -> list[int]:
        """The partitions that it says it serves now."""
        told = [e for e in self._events() if e.get("event") in ("revoked", "resumed")]
        return told[-1]["partitions"] if told and told[-1]["event"] == "resumed" else []

    @property
    def state(self) -> str:
        """As the kernel says: R running, S sleeping, T stopped."""
        stat = Path(f"/proc/{self.running.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]

    @property
    def words(self) -> str:
        """The end of its log."""
        return tail(self.running.log, lines=40)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Lines of its log about an event, of the process that was started last."""
        return [event for event in self._events() if event.get("event") == name]

    def _events(self) -> list[dict[str, Any]]:
        # A line that is being written is not there yet.
        lines = self.running.log.read_bytes().rpartition(b"\n")[0].splitlines()
        return [orjson.loads(line) for line in lines if line.startswith(b"{")]


class Checked(Protocol):
    """A load that says when it fails."""

    def check(self) -> bool:
        """True while all is well; raises what went wrong."""
        ...


class Scene:
    """A stack on which workers live and die; `prefix` keeps the cars of a test apart."""

    def __init__(self, endpoints: Endpoints, folder: Path, prefix: str) -> None:
        self.endpoints = endpoints
        self.prefix = prefix
        self.workers: list[Worker] = []
        self.folder = folder
        self._progress = Progress(endpoints.kafka)

    def worker(self, name: str, **told: str) -> Worker:
        """A worker that is not started yet."""
        made = Worker(f"{self.prefix}-{name}", self.endpoints, self.folder, **told)
        self.workers.append(made)
        return made

    def load(self, **told: Any) -> Load:
        """A load that is not started yet."""
        return Load(self.endpoints.kafka, self.endpoints.redis, self.prefix, **told)

    def until(self, condition: Callable[[], Any], load: Checked) -> Any:
        """Wait under load; fails at once when the load does."""
        return until(lambda: load.check() and condition(), self._words)

    def settle(self) -> None:
        """Wait until every record is applied, told and committed."""
        until(
            lambda: not self._progress.left(),
            lambda: f"left: {self._progress.left()}\n{self._words()}",
        )

    def until_committed(self, load: Checked) -> None:
        """Wait under load until the group has come further."""
        before = self._progress.committed()
        self.until(lambda: self._progress.committed() > before, load)

    def check(self) -> Accounts:
        """The accounts, which must be right now."""
        accounts = self.accounts()
        found = accounts.faults()
        assert not found, report(found)
        return accounts

    def check_soon(self, accounts: Callable[[], Any] | None = None, seconds: float = 40) -> Any:
        """The accounts when they have become right, as they must."""
        last: list[Any] = []

        def right() -> bool:
            last[:] = [(accounts or self.accounts)()]
            return not last[0].faults()

        until(right, lambda: report(last[0].faults()), seconds)
        return last[0]

    def accounts(self) -> Accounts:
        """What there is."""
        return Accounts(self.endpoints.kafka, self.endpoints.redis, self.prefix)

    def ends(self, names: tuple[str, ...]) -> int:
        """How many records the topics have had."""
        return sum(self._progress.ends(names).values())

    def close(self) -> None:
        """End what still runs."""
        for worker in self.workers:
            if worker.child is not None:
                worker.child.kill()

    def _words(self) -> str:
        return "\n".join(f"{w.name}:\n{w.words}" for w in self.workers if w.child is not None)


def share(partitions: list[int], *workers: Worker) -> bool:
    """Whether each of the workers serves some of the partitions, and they all of them."""
    served = [worker.serves() for worker in workers]
    return all(served) and sorted(p for parts in served for p in parts) == partitions


PARTITIONS = 4


@pytest.fixture(scope="module")
def servers(make_module_stack: MakeStack) -> Endpoints:
    """Kafka and Redis for the workers of one module alone."""
    return make_module_stack(partitions=PARTITIONS, mqtt="amqtt")[1]


@pytest.fixture
def scene(servers: Endpoints, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """A scene of the test's own on the servers of its module."""
    made = Scene(servers, tmp_path, prefix=f"t{abs(hash(request.node.nodeid)) % 10**6}")
    yield made
    made.close()


def report(found: list[str], most: int = 12) -> str:
    """Faults for a person."""
    return "\n".join([f"{len(found)} faults", *(fault[:1600] for fault in found[:most])])
