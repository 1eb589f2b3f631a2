"""Kafka's jars: resolved once from Maven Central by jgo, then remembered as a class path.

Resolving runs in its own process (`python -m twin.local.jars FILE`), so that what jgo prints stays
in a log and its failures are an exit code. The class path lies in the user's cache beside nothing
of a data directory: a new data directory needs no network.
"""

import fcntl
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

KAFKA_VERSION: Final = "4.3.1"
# Without the explicit kafka-clients an older one is picked and the broker does not start; without
# slf4j-simple nothing is logged.
_ENDPOINT: Final = (
    f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}"
    f"+org.apache.kafka:kafka-clients:{KAFKA_VERSION}"
    "+org.slf4j:slf4j-simple:1.7.36"
)


def class_path_file(environ: Mapping[str, str]) -> Path:
    """Where the class path is remembered."""
    cache = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "cartwin" / f"kafka-{KAFKA_VERSION}.classpath.json"


def read_class_path(file: Path) -> list[str] | None:
    """The remembered jars; None when there are none or one of them is gone."""
    try:
        jars = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    if not isinstance(jars, list) or not jars:
        return None
    return jars if all(isinstance(jar, str) and os.path.isfile(jar) for jar in jars) else None


def resolve(file: Path) -> None:
    """Download what is missing and write the class path to `file`."""
    import jgo  # noqa: PLC0415 - only the resolving process needs it
    from jgo.env import _builder  # noqa: PLC0415

    # jgo would fetch a whole JDK just to tell modules from plain jars; we put all on one class path.
    _builder.get_baseline_jar_tool = lambda: None
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.with_suffix(".lock").open("w") as lock:
        # Two starts at once: the second one waits and finds the work done.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if read_class_path(file) is not None:
            return
        environment = jgo.build(_ENDPOINT)
        jars = [str(jar) for jar in (*environment.class_path_jars, *environment.module_path_jars)]
        if not any(Path(jar).name == f"kafka-clients-{KAFKA_VERSION}.jar" for jar in jars):
            raise RuntimeError(f"kafka-clients {KAFKA_VERSION} is not among {jars}")
        draft = file.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(jars, indent=1))
        draft.replace(file)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    resolve(Path(sys.argv[1]))
