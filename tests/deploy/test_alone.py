"""Every process starts from only the paths that its image holds: deployable alone."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ("twin/__init__.py", "twin/native", "twin/wire", "twin/kit")
CORE = tuple(str(path.relative_to(ROOT)) for path in (ROOT / "twin").glob("*.py"))

PROCESSES = {
    "uplink and downlink": (
        ("ingest",),
        ("ingest.__main__", "ingest.uplink", "ingest.downlink"),
    ),
    "api": (("twin/__main__.py", "twin/api"), ("twin.__main__", "twin.api.server")),
    "worker": (
        (*CORE, "twin/policy.toml", "twin/stream", "twin/view"),
        ("twin.__main__", "twin.worker", "twin.rebuild"),
    ),
    "scorer and trainer": (("models",), ("models.__main__", "models.scorer", "models.train")),
    "car": (("twin/client",), ("twin.client.car",)),
}

CHECK = """
import importlib, sys
root, *names = sys.argv[1:]
for name in names:
    importlib.import_module(name)
ours = [m for n, m in sys.modules.items() if n.partition(".")[0] in ("twin", "ingest", "models")]
strange = [m.__name__ for m in ours if m.__file__ and not m.__file__.startswith(root)]
assert not strange, f"imported from elsewhere: {strange}"
"""


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_needs_its_own_paths_only(process, tmp_path):
    """With nothing else of the repository beside it, its entry and its modules import."""
    paths, names = PROCESSES[process]
    for path in dict.fromkeys((*SHARED, *paths)):
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / path).is_dir() else shutil.copy
        copy(ROOT / path, target)
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path), *names],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
