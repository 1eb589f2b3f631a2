"""Dockerfile and compose.yaml, without Docker: read line by line, and carried out in an empty environment.

`started` does for a target what `docker build` and `docker run` would: its packages into a virtual
environment, the paths that are copied into a folder, its entry point with `--help` and with a setting
that is wrong. What is not shown so: base images, Debian packages, the user.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from k8s.checks.programs import Absent
from k8s.checks.tools import BUILD, ROOT
from k8s.checks.workloads import SETTINGS

STARTED: Final[dict[str, tuple[str, ...]]] = {
    "ingest": ("uplink", "downlink"),
    "worker": ("worker", "rebuild-view"),
    "api": ("api",),
    "models": ("scorer", "train", "simulate"),
    "fleet": (),
}
"""Targets with the arguments that they are run with."""
Line = tuple[str, str]


def targets(text: str) -> dict[str, list[Line]]:
    """Stage -> its instructions; a stage begins with those of the stage that it is from."""
    joined = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text))
    found: dict[str, list[Line]] = {}
    name = ""
    for line in filter(None, map(str.strip, joined.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            base, _, name = rest.partition(" AS ")
            found[name] = [("FROM", base), *found.get(base, ())]
        else:
            found[name].append((word, rest.strip()))
    return found


def faults() -> Iterator[str]:
    """Dockerfile and compose.yaml by what is written in them."""
    stages = targets((ROOT / "Dockerfile").read_text())
    for name in (*STARTED, "hivemq", "kafka"):
        if name not in stages:
            yield f"Dockerfile has no target {name}"
            continue
        lines = stages[name]
        users = [rest for word, rest in lines if word == "USER"]
        if not users or not re.fullmatch(r"[1-9]\d*:[1-9]\d*", users[-1]):
            yield f"target {name} runs as {users[-1:]}"
        if name != "kafka" and not any(word == "ENTRYPOINT" for word, _ in lines):
            yield f"target {name} does nothing"
    for name, lines in stages.items():
        for word, rest in lines:
            if (
                word == "FROM"
                and rest not in stages
                and not re.search(r":v?\d+\.?\d*[\w.-]*$", rest)
            ):
                yield f"stage {name} is from {rest}, which may be another one tomorrow"
            if word == "RUN" and "pip install" in rest and "--require-hashes" not in rest:
                yield f"stage {name} installs what nobody has hashed"
            if word == "ADD" or "curl" in rest or "wget" in rest:
                yield f"stage {name} fetches {rest[:60]}"
            if word == "COPY" and "--from" not in rest:
                for path in rest.split()[:-1]:
                    if not list(ROOT.glob(path)):
                        yield f"stage {name} copies {path}, which is not there"
            if (
                word == "COPY"
                and (found := re.match(r"--from=(\S+)", rest))
                and found[1] not in stages
            ):
                yield f"stage {name} copies from {found[1]}, which is not there"
    yield from _compose(stages)


def _compose(stages: dict[str, list[Line]]) -> Iterator[str]:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
    services, volumes = compose["services"], set(compose["volumes"])
    used: set[str] = set()
    for name, service in services.items():
        target = service.get("build", {}).get("target")
        if target is None and not re.search(r":v?\d+\.\d+", service.get("image", "")):
            yield f"compose {name}: image {service.get('image')} may be another one tomorrow"
        if target is not None and target not in stages:
            yield f"compose {name}: there is no target {target}"
        for other in service.get("depends_on", {}):
            if other not in services:
                yield f"compose {name} waits for {other}, which is not there"
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("./"):
                if not (ROOT / source).exists():
                    yield f"compose {name} mounts {source}, which is not there"
            else:
                used.add(source)
                if source not in volumes:
                    yield f"compose {name}: there is no volume {source}"
        for port in service.get("ports", ()):
            if not port.startswith("127.0.0.1:"):
                yield f"compose {name} is open to the network at {port}"
        yield from _process(name, service)
    for name in sorted(volumes - used):
        yield f"compose: nobody uses volume {name}"
    config = yaml.safe_load((ROOT / "k8s" / "observability" / "prometheus.yml").read_text())
    for job in config["scrape_configs"]:
        for place in job["static_configs"][0]["targets"]:
            host, _, port = place.partition(":")
            told = services.get(host, {}).get("environment", {})
            known = {
                told.get("HEALTH_PORT"),
                told.get("API_PORT"),
                "9404" if host == "kafka" else None,
            }
            if host != job["job_name"] or port not in known:
                yield f"prometheus.yml asks {place}, which nobody serves"


def _process(name: str, service: dict[str, Any]) -> Iterator[str]:
    if name not in SETTINGS or name == "trainer":
        return
    if service.get("command") != [name]:
        yield f"compose {name} runs {service.get('command')}"
    if not service.get("read_only") or service.get("cap_drop") != ["ALL"]:
        yield f"compose {name} is not confined"
    fields = SETTINGS[name].model_fields
    for variable in service.get("environment", {}):
        if variable.lower() not in fields:
            yield f"compose {name}: {variable} is no setting of it"


def started(target: str) -> Iterator[str]:
    """Install and start one target in an empty environment, from the lines of the Dockerfile."""
    if shutil.which(f"python{sys.version_info.major}.{sys.version_info.minor}") is None:
        raise Absent("no Python to make an empty environment with")
    stages = targets((ROOT / "Dockerfile").read_text())
    lines = stages[target]
    packages = next(
        re.findall(r"--from=(\S+-packages)", rest)[0] for w, rest in lines if "-packages" in rest
    )
    asked = next(rest for w, rest in stages[packages] if w == "RUN" and "image-packages.py" in rest)
    name = re.findall(r"image-packages\.py (\S+)", asked)[0]
    with tempfile.TemporaryDirectory(prefix=f"cartwin-image-{target}-") as scratch:
        app, venv = Path(scratch) / "app", BUILD / "images" / target
        app.mkdir()
        pinned = subprocess.run(
            [sys.executable, "scripts/image-packages.py", name],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        wanted = Path(scratch) / "packages.txt"
        wanted.write_text(pinned)
        shutil.rmtree(venv, ignore_errors=True)
        for command in (
            [sys.executable, "-m", "venv", str(venv)],
            [str(venv / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes",
             "--disable-pip-version-check", "-r", str(wanted)],
        ):  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                yield f"{target}: {command[1:4]}: {done.stderr[-600:]}"
                return
        _copied(stages, target, app)
        entry = _entry(lines)
        python = str(venv / "bin" / "python")
        for process in STARTED[target]:
            yield from _tried(target, [python, *entry[1:], process], app)
        if target == "fleet":
            yield from _fleet(python, app)
        shutil.rmtree(venv, ignore_errors=True)


def _copied(stages: dict[str, list[Line]], target: str, app: Path) -> None:
    for word, rest in stages[target]:
        if word != "COPY":
            continue
        *sources, into = [part for part in rest.split() if not part.startswith("--")]
        if "--from=native" in rest:
            # Compiled here as there: the package with its shared libraries.
            sources = ["twin/__init__.py", "twin/native"]
            into = "twin/"
        elif "--from" in rest:
            continue
        for source in sources:
            for path in sorted(ROOT.glob(source)):
                goal = app / into / path.name if into.endswith("/") else app / into
                goal.parent.mkdir(parents=True, exist_ok=True)
                if path.is_dir():
                    shutil.copytree(path, goal, dirs_exist_ok=True)
                else:
                    shutil.copy(path, goal)


def _entry(lines: list[Line]) -> list[str]:
    (said,) = [rest for word, rest in lines if word == "ENTRYPOINT"][-1:]
    return list(yaml.safe_load(said))


def _tried(target: str, command: list[str], app: Path) -> Iterator[str]:
    env = {
        "PATH": os.defpath,
        "PYTHONPATH": str(app),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "HOME": str(app),
    }
    helped = subprocess.run(
        [*command, "--help"], cwd=app, env=env, capture_output=True, text=True, check=False
    )
    if helped.returncode:
        yield f"{target} {command[-1]} --help: {helped.stderr[-600:]}"
    if command[-1] in ("train", "simulate"):
        return
    wrong = subprocess.run(
        command, cwd=app, env={**env, "KAFKA_SECURITY_PROTOCOL": "LOUD"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if (
        wrong.returncode != 2
        or "KAFKA_SECURITY_PROTOCOL='LOUD' is not accepted" not in wrong.stderr
    ):
        yield f"{target} {command[-1]} with a wrong setting: {wrong.returncode} {wrong.stderr[-600:]}"


def _fleet(python: str, app: Path) -> Iterator[str]:
    env = {"PATH": f"{Path(python).parent}:{os.defpath}", "PYTHONPATH": str(app), "HOME": str(app)}
    for command in (
        ["locust", "-f", "load-test/locustfile.py", "--help"],
        [python, "-m", "twin.cli", "broker", "ca", "issue", "--help"],
        [python, "-c", "from twin.local.topics import create"],
    ):
        done = subprocess.run(
            command, cwd=app, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            yield f"fleet {' '.join(command[1:])}: {done.stderr[-600:]}"
