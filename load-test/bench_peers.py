"""The peers of `cartwin bench twin`: how each is installed, started, and where its changelog lies.

Python peers have a virtual environment of their own from pinned, hashed requirements; the Java peer is
compiled with the machine's javac over jars from Maven. All of it stays in the bench's data directory.
What cannot be installed raises `Skipped` with the reason; a bench names it and goes on.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench_state import CARTWIN, PEER, Form
from twin.local import jars as local_jars

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
SOURCES: Final = HERE / "peers"
_SCHEMA: Final = ROOT / "twin/wire/schemas/telemetry-v1.avsc"
_STREAMS: Final = (
    "org.apache.kafka:kafka-streams:4.3.1+org.apache.kafka:kafka-clients:4.3.1"
    "+org.slf4j:slf4j-simple:1.7.36"
)
# What a service would run with on this machine: a fixed heap, the collector with the highest
# throughput on two cores.
_JVM: Final = ("-Xms1g", "-Xmx1g", "-XX:+UseParallelGC")
_INSTALL_S: Final = 900


class Skipped(Exception):
    """A peer cannot run here; the message says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Job:
    """One run of a peer."""

    bootstrap: str
    redis: str
    group: str
    partitions: int
    folder: Path
    """Empty, for its local state."""
    health_port: int


@dataclass(frozen=True, slots=True)
class Peer:
    """`install` returns the head of its command line (installing once); `told` its environment."""

    name: str
    about: str
    group: str
    """Consumer group; `{run}` is replaced by what tells the runs apart."""
    changelog: str
    """Topic; `{group}` is replaced."""
    form: Form
    install: Callable[[Path], Sequence[str]]
    arguments: Callable[[Job], Sequence[str]]
    told: Callable[[Job], dict[str, str]] = lambda _job: {}
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Printed where the process does not print its own."""


def virtual_environment(home: Path, name: str) -> str:
    """Python of the environment with what peers/NAME.txt pins."""
    requirements = SOURCES / f"{name}.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    folder = home / name
    python, done = folder / "bin/python", folder / "installed"
    if done.exists() and done.read_text() == digest:
        return str(python)
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    _run([sys.executable, "-m", "venv", str(folder)], f"the environment of {name}")
    _run([*pip, "--require-hashes", "-r", str(requirements)], f"what {requirements.name} pins")
    done.write_text(digest)
    return str(python)


def _python(name: str, script: str) -> Callable[[Path], Sequence[str]]:
    return lambda home: [virtual_environment(home, name), str(SOURCES / script)]


def _streams(home: Path) -> Sequence[str]:
    javac = shutil.which("javac")
    if javac is None:
        raise Skipped("there is no javac here to compile it (Debian: apt-get install default-jdk)")
    source, folder = SOURCES / "StreamsApp.java", home / "kafka-streams"
    digest = hashlib.sha256(source.read_bytes() + _STREAMS.encode()).hexdigest()
    done, jars_file, classes = (folder / n for n in ("installed", "jars.json", "classes"))
    if not done.exists() or done.read_text() != digest:
        shutil.rmtree(folder, ignore_errors=True)
        classes.mkdir(parents=True)
        resolve = [sys.executable, str(HERE / "bench_jars.py"), str(jars_file), _STREAMS]
        _run(resolve, "the jars of Kafka Streams")
        path = ":".join(json.loads(jars_file.read_text()))
        compiling = [javac, "--release", "17", "-d", str(classes), "-cp", path, str(source)]
        _run(compiling, source.name)
        done.write_text(digest)
    path = ":".join([str(classes), *json.loads(jars_file.read_text())])
    quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return [local_jars.java(), *_JVM, quiet, "-cp", path, "StreamsApp"]


def _run(argv: Sequence[str], what: str) -> None:
    try:
        done = subprocess.run(  # noqa: S603 - our own command lines
            argv, capture_output=True, text=True, timeout=_INSTALL_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"installing {what} took longer than {_INSTALL_S} s") from None
    except OSError as error:
        raise Skipped(f"{argv[0]} cannot be run: {error.strerror}") from None
    if done.returncode != 0:
        last = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["(no word)"]
        raise Skipped(f"{what} cannot be installed: {last[0][:300]}")


def _cartwin(script: str | None) -> Callable[[Path], Sequence[str]]:
    head = ["-m", "twin", "worker"] if script is None else [str(SOURCES / script)]
    return lambda _home: [sys.executable, *head]


def _worker_environment(job: Job) -> dict[str, str]:
    return {
        "KAFKA_BOOTSTRAP": job.bootstrap,
        "REDIS_URL": job.redis,
        "HEALTH_PORT": str(job.health_port),
        "LOG_FORMAT": "json",
        "LOG_LEVEL": "info",
        "PYTHONPATH": str(ROOT),
        "STORE_DIR": str(job.folder),
    }


_DEFAULTS: Final = {"all": "defaults of twin/settings.py"}


def _common(job: Job) -> list[str]:
    return ["--bootstrap", job.bootstrap, "--group", job.group]


PEERS: Final = (
    Peer(
        "cartwin",
        "the worker process with everything, Redis view too",
        "cartwin-twin",
        "twins",
        CARTWIN,
        _cartwin(None),
        lambda _job: [],
        _worker_environment,
        _DEFAULTS,
    ),
    Peer(
        "cartwin-table",
        "the same without the Redis view",
        "cartwin-twin",
        "twins",
        CARTWIN,
        _cartwin("cartwin_table.py"),
        lambda _job: [],
        _worker_environment,
        _DEFAULTS,
    ),
    Peer(
        "faust",
        "stock Faust, agent and table, one event at a time",
        "bench-{run}",
        "{group}-states-changelog",
        PEER,
        _python("faust", "faust_app.py"),
        lambda job: [*_common(job), "--partitions", str(job.partitions)],
    ),
    Peer(
        "faust-take",
        "stock Faust with Stream.take",
        "bench-{run}",
        "{group}-states-changelog",
        PEER,
        _python("faust", "faust_app.py"),
        lambda job: [*_common(job), "--partitions", str(job.partitions), "--take", "2000"],
    ),
    Peer(
        "quix",
        "Quix Streams, apply(stateful=True), RocksDB",
        "bench-{run}",
        "changelog__{group}--telemetry--default",
        PEER,
        _python("quix", "quix_app.py"),
        lambda job: [*_common(job), "--state-dir", str(job.folder), "--every", "20000"],
    ),
    Peer(
        "kafka-streams",
        "Kafka Streams in Java, Processor API, 1 thread",
        "bench-{run}",
        "{group}-states-changelog",
        PEER,
        _streams,
        lambda job: [job.bootstrap, job.group, str(job.folder), str(_SCHEMA)],
    ),
)


def environment(peer: Peer, job: Job) -> dict[str, str]:
    """What a peer's process is told, besides what this one was."""
    inherited = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return {**inherited, "PYTHONUNBUFFERED": "1", **peer.told(job)}
