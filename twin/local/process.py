"""A child process with a log file that ends with its parent, whatever ends the parent.

The kernel kills the child when the *thread* that created it ends (PR_SET_PDEATHSIG), so every
child is created by one thread that lives as long as the interpreter. If the parent died between
fork and prctl the signal never comes; the child sees its new parent and leaves.
Each child leads its own session: Ctrl-C reaches the supervisor only, which then stops the children
in order.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# The thread starts with the first child and is joined at interpreter exit.
_TAIL_BYTES: Final = 64 * 1024
_SPAWNER: Final = ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")


class Child:
    """A started process. `log` holds its stdout and stderr."""

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path) -> None:
        self.name = name
        self.log = log
        self.started = time.monotonic()
        self._popen = popen

    @property
    def pid(self) -> int:
        """Process id, which is its process group's id, too."""
        return self._popen.pid

    def exit_code(self) -> int | None:
        """None while it runs, else its exit code (negative: minus the signal that ended it)."""
        return self._popen.poll()

    def wait(self, timeout_s: float) -> int | None:
        """Its exit code, or None when it still runs after `timeout_s`."""
        try:
            return self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def terminate(self) -> None:
        """Ask it and its own children to end; nothing happens if it has ended."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once and reap it."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def obituary(self) -> str:
        """How it ended and the last lines of its log, for a message about it."""
        code = self.exit_code()
        if code is None:
            end = "is still running"
        elif code < 0:
            end = f"was ended by {signal.Signals(-code).name}"
        else:
            end = f"ended with exit code {code}"
        return f"{self.name} {end}; its log {self.log} ends:\n{tail(self.log)}"

    def _signal(self, number: signal.Signals) -> None:
        # Not reaped yet, so the group id cannot have been given to somebody else.
        if self._popen.poll() is None:
            os.killpg(self._popen.pid, number)


def spawn(name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
    """Start `argv` with `env`, writing to `log` (appended). Raises `OSError` if it cannot start."""
    return _SPAWNER.submit(_spawn, name, argv, env, log).result()


def _spawn(name: str, argv: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
    parent = os.getpid()

    def leash() -> None:
        # Runs between fork and exec: system calls only.
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    with log.open("ab") as sink:
        popen = subprocess.Popen(  # noqa: S603 - our own command lines
            argv,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=leash,  # noqa: PLW1509 - calls nothing that takes a lock
        )
    return Child(name, popen, log)


def stop_all(children: Sequence[Child], deadline_s: float) -> list[str]:
    """Ask all of them to end, kill after `deadline_s`; returns the names of those killed."""
    for child in children:
        child.terminate()
    end = time.monotonic() + deadline_s
    killed = []
    for child in children:
        if child.wait(max(0.0, end - time.monotonic())) is None:
            child.kill()
            killed.append(child.name)
    return killed


def tail(log: Path, lines: int = 15, line_chars: int = 400) -> str:
    """The last lines of a log, indented, each cut to `line_chars`."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            text = file.read().decode(errors="replace")
    except OSError as error:
        return f"    (cannot be read: {error.strerror})"
    last = text.splitlines()[-lines:] or ["(empty)"]
    return "\n".join("    " + line.rstrip()[:line_chars] for line in last)
