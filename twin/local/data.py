"""The data directory: who may use it, who does, and what is kept in it.

A marker file says that the directory is ours, so that `--fresh` never empties somebody else's.
The supervisor holds an flock on `lock` as long as it lives; the kernel lets go of it when the
supervisor dies, so a stale file is never mistaken for a running stack.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from twin.local.errors import AlreadyRunning, ForeignDirectory, LocalError

MARKER: Final = "cartwin-data"
_LOCK: Final = "lock"
_ENDPOINTS: Final = "endpoints.json"
# A directory without marker is ours all the same if it holds nothing but what our commands make
# before the first `up`.
_OURS: Final = frozenset({_LOCK, "models", "logs"})


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Addresses of a running stack. `api` is None for infrastructure without our processes.

    `health` maps the name of each of our processes to the URL whose /readyz and /metrics it serves.
    `validation` is the mode our uplink runs in; None when it is not part of the stack. `ca` is the
    folder of certificates that `mqtt` asks for; None without TLS.
    """

    api: str | None
    mqtt: tuple[str, ...]
    kafka: str
    redis: str
    pid: int
    health: Mapping[str, str] = field(default_factory=dict)
    validation: str | None = None
    ca: str | None = None

    def public(self) -> dict[str, Any]:
        """What `cartwin up --json` prints."""
        addresses = {
            "api": self.api,
            "mqtt": list(self.mqtt),
            "kafka": self.kafka,
            "redis": self.redis,
        }
        return addresses if self.ca is None else {**addresses, "ca": self.ca}

    def document(self) -> dict[str, Any]:
        """What endpoints.json holds."""
        return {
            **self.public(),
            "pid": self.pid,
            "health": dict(self.health),
            "validation": self.validation,
        }


def running(data_dir: Path) -> Endpoints | None:
    """Endpoints of the stack that runs on `data_dir`; None if none does, or it is starting."""
    return None if _holder(data_dir) is None else _read_endpoints(data_dir)


@contextmanager
def hold(data_dir: Path, *, fresh: bool) -> Iterator[None]:
    """Own `data_dir` (made if absent, emptied if `fresh`) until the block ends.

    Raises `AlreadyRunning` or `ForeignDirectory`.
    """
    _make(data_dir)
    lock = os.open(data_dir / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(_in_use(data_dir)) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode(), 0)
        if fresh:
            try:
                _empty(data_dir)
            except OSError as error:
                raise LocalError(
                    f"--fresh cannot empty {data_dir}: {error.filename}: {error.strerror}."
                ) from None
        (data_dir / _ENDPOINTS).unlink(missing_ok=True)
        yield
        (data_dir / _ENDPOINTS).unlink(missing_ok=True)
    finally:
        os.close(lock)


def write_endpoints(data_dir: Path, endpoints: Endpoints) -> None:
    """Write endpoints.json in one step, so that a reader never sees half of it."""
    replace_text(data_dir / _ENDPOINTS, json.dumps(endpoints.document(), indent=1) + "\n")


def replace_text(path: Path, text: str) -> None:
    """Give `path` new content in one step."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text)
    draft.replace(path)


def _make(data_dir: Path) -> None:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        marker = data_dir / MARKER
        if marker.exists():
            return
        foreign = sorted(entry.name for entry in data_dir.iterdir() if entry.name not in _OURS)
        if foreign:
            raise ForeignDirectory(
                f"{data_dir} is no data directory of cartwin: it holds {foreign[0]!r} and no"
                f" {MARKER!r} file. Name an empty or a new directory with --data-dir."
            )
        marker.write_text("Written by cartwin; `cartwin up --fresh` empties this directory.\n")
    except (FileExistsError, NotADirectoryError):
        raise LocalError(f"{data_dir} is a file; --data-dir wants a directory.") from None
    except OSError as error:
        raise LocalError(
            f"{data_dir} cannot be written ({error.strerror}): name another with --data-dir."
        ) from None


def _empty(data_dir: Path) -> None:
    for entry in data_dir.iterdir():
        if entry.name in (MARKER, _LOCK):
            continue
        # A link is removed and not followed: what it points to is not ours.
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _holder(data_dir: Path) -> int | None:
    """Pid of the supervisor that holds the lock."""
    try:
        lock = os.open(data_dir / _LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.pread(lock, 20, 0) or b"0")
    else:
        return None
    finally:
        os.close(lock)


def _read_endpoints(data_dir: Path) -> Endpoints | None:
    try:
        document = json.loads((data_dir / _ENDPOINTS).read_text())
    except FileNotFoundError:
        return None
    return Endpoints(**{**document, "mqtt": tuple(document["mqtt"])})


def _in_use(data_dir: Path) -> str:
    pid, endpoints = _holder(data_dir), _read_endpoints(data_dir)
    where = "it is still starting"
    if endpoints is not None:
        where = ", ".join(
            f"{part} {address if isinstance(address, str) else ' '.join(address)}"
            for part, address in endpoints.public().items()
            if address
        )
    return (
        f"A stack is already running on {data_dir} (pid {pid}; {where}):"
        f" use it, stop it with `kill {pid}`, or name another --data-dir."
    )
