"""The whole loop, as a user runs it: `cartwin demo` with fewer cars, every check of it real."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
KEYS = [
    "ok", "connected", "sent", "acknowledged", "kafka", "applied", "rejected", "duplicates", "twins",
    "scores", "alarms", "alarms_on_healthy", "commands", "lost",
]  # fmt: skip


def test_the_demo_goes_round_and_accounts_for_every_message(tmp_path):
    """Cars, twins, trained models, alarms on failing cars only, commands to their end, nothing lost."""
    data_dir = tmp_path / "demo"
    done = subprocess.run(
        [
            sys.executable, "-m", "twin.cli", "demo", "--seconds", "150", "--cars", "60",
            "--degraded", "10", "--data-dir", str(data_dir), "--json",
        ],
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert lines, f"no result; stderr: {done.stderr[-3000:]}"
    result = json.loads(lines[-1])
    assert done.returncode == 0, f"{result}\n{done.stderr[-3000:]}"
    assert [key for key in KEYS if key not in result] == []
    assert result["ok"] is True
    assert result["problems"] == []
    assert result["connected"] == result["twins"] == 60
    assert result["sent"] >= result["acknowledged"] > 60 * 100
    assert result["lost"] == result["rejected"] == result["alarms_on_healthy"] == 0
    assert result["applied"] == result["kafka"]
    assert result["alarms"] > 0
    assert result["commands"].get("succeeded", 0) > 0
    assert result["trained"]["rows"] > 0
    # What is left is a stopped stack: logs to read, no process.
    assert (data_dir / "logs" / "worker.log").exists()
    assert not (data_dir / "endpoints.json").exists()
