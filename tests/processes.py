"""Our processes one by one, for tests that kill them: started, asked, killed, started again.

A `Stack` ends everything when one of its processes dies; here nothing watches them. They end with
the test run, whatever ends it (`twin.local.process`).
"""

import os
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twin.local.data import Endpoints
from twin.local.options import APPLICATION
from twin.local.ports import HOST, PortPicker
from twin.local.process import Child, spawn, tail

DEADLINE_S = 60.0
_PORTS = PortPicker()


def until(
    condition: Callable[[], Any], what: str | Callable[[], Any], seconds: float = DEADLINE_S
) -> Any:
    """Poll until `condition` gives something true and return it; fails naming what did not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {seconds:g} s: {what() if callable(what) else what}")


class Process:
    """The process `name` of `twin.local.options.APPLICATION` on the servers of `endpoints`.

    Its health port stays the same over restarts; `told` is added to its environment.
    """

    def __init__(self, name: str, endpoints: Endpoints, folder: Path, **told: str) -> None:
        self.name = name
        self.starts = 0
        self.child: Child | None = None
        self._folder = folder
        port = str(_PORTS.free())
        self.url = f"http://{HOST}:{port}"
        # The API answers /readyz and /metrics on its own port.
        listens = {"API_HOST": HOST, "API_PORT": port} if name == "api" else {"HEALTH_PORT": port}
        self._environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP": endpoints.kafka,
            "REDIS_URL": endpoints.redis,
            "MQTT_URLS": ",".join(endpoints.mqtt),
            "LOG_FORMAT": "json",
            # A second or so a start; tests of the probe itself ask for it.
            "UPLINK_QUEUE_PROBE": "0",
            **listens,
            **told,
        }

    def start(self) -> "Process":
        """Start it, and return at once."""
        self.starts += 1
        log = self._folder / f"{self.name}-{self.starts}.log"
        self.child = spawn(
            self.name, [sys.executable, *APPLICATION[self.name]], self._environment, log
        )
        return self

    def ready(self) -> "Process":
        """Wait until /readyz says so; fails at once when the process ends."""
        until(
            lambda: self.check() and self.get("/readyz")[0] == 200,
            lambda: f"{self.name} is not ready: {self.get('/readyz')}\n{tail(self._log)}",
        )
        return self

    def check(self) -> bool:
        """True while it runs; fails with its last words when it does not."""
        assert self.child is not None
        assert self.child.exit_code() is None, self.child.obituary()
        return True

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; (0, why) while nobody answers."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metrics(self) -> Counter[str]:
        """The sums of all metrics over their labels, of one moment; empty while nobody answers."""
        status, text = self.get("/metrics")
        found: Counter[str] = Counter()
        for line in text.splitlines() if status == 200 else ():
            if not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                found[name.partition("{")[0]] += float(value)  # type: ignore[assignment]
        return found

    def kill(self) -> None:
        """End it by SIGKILL."""
        assert self.child is not None
        self.child.kill()

    def stop(self) -> int | None:
        """End it by SIGTERM; its exit code, None when it had to be killed."""
        assert self.child is not None
        self.child.terminate()
        code = self.child.wait(30)
        if code is None:
            self.child.kill()
        return code

    @property
    def _log(self) -> Path:
        assert self.child is not None
        return self.child.log
