"""A Mosquitto of a test's own, with the configuration lines that the test is about."""

import os
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.stacks import need_mosquitto
from twin.local.mqtt import mosquitto_binary
from twin.local.ports import HOST, PortPicker

_PORTS = PortPicker()
_DEADLINE_S = 20.0
PLENTY = ("max_queued_messages 100000", "max_inflight_messages 1000")


class Mosquitto:
    """A broker on one port that may be stopped and started again with other lines."""

    def __init__(self, folder: Path) -> None:
        self.port = _PORTS.free()
        self.url = f"mqtt://{HOST}:{self.port}"
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *lines: str) -> "Mosquitto":
        """Run it, with anonymous access unless `lines` say otherwise, until it takes connections."""
        config = self._folder / f"mosquitto-{self.port}.conf"
        told = [f"listener {self.port} {HOST}", "set_tcp_nodelay true", "log_dest stderr", *lines]
        if not any(line.startswith("allow_anonymous") for line in lines):
            told.append("allow_anonymous true")
        if os.geteuid() == 0:
            told.insert(0, "user root")
        config.write_text("\n".join(told) + "\n")
        binary = mosquitto_binary(os.environ)
        assert binary is not None
        with (self._folder / f"mosquitto-{self.port}.log").open("ab") as log:
            self._process = subprocess.Popen([binary, "-c", str(config)], stdout=log, stderr=log)
        end = time.monotonic() + _DEADLINE_S
        while time.monotonic() < end:
            assert self._process.poll() is None, f"Mosquitto ended: see {log.name}"
            with suppress(OSError), socket.create_connection((HOST, self.port), 1):
                return self
            time.sleep(0.02)
        raise AssertionError(f"Mosquitto takes no connection on port {self.port}")

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_DEADLINE_S)
            self._process = None


@pytest.fixture
def own_mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that the test starts with its own lines; skips where Mosquitto is not installed."""
    need_mosquitto()
    with ExitStack() as started:
        broker = Mosquitto(tmp_path)
        started.callback(broker.stop)
        yield broker
