"""The benches in small: every peer that can be installed is right, and a kill loses nothing.

Times and ratios decide nothing here; they are those of a few records.
"""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from twin.local.process import tail

pytestmark = [pytest.mark.deep, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]


def bench(name, folder, *words):
    """The JSON line of `cartwin bench NAME`; fails with what it said when there is none."""
    said = folder / "said"
    with said.open("wb") as sink:
        done = subprocess.run(
            [sys.executable, "-m", "twin.cli", "bench", name, "--data-dir", str(folder), *words],
            stdout=subprocess.PIPE,
            stderr=sink,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            check=False,
        )
    assert done.returncode in (0, 1), tail(said)
    assert b"Traceback" not in said.read_bytes(), tail(said)
    return orjson.loads(done.stdout.splitlines()[-1])


def test_every_peer_ends_in_the_fold_of_all_records(tmp_path):
    """Values and vehicles of each changelog are right; who cannot be installed is named."""
    line = bench("twin", tmp_path, "--vehicles", "500", "--messages", "3000", "--runs", "1")
    skipped = {entry["peer"] for entry in line["skipped"]}
    peers = {"cartwin", "cartwin-table", "faust", "faust-take", "quix", "kafka-streams"}
    assert line["results"].keys() | skipped == peers, line["problems"]
    assert "cartwin" not in skipped
    assert [name for name, found in line["results"].items() if not found["equal"]] == []


def test_a_kill_loses_and_doubles_nothing(tmp_path):
    """Whoever takes over, with or without a copy on its disk."""
    line = bench("recovery", tmp_path, "--vehicles", "2000", "--rate", "300", "--runs", "1")
    assert (line["lost"], line["applied_twice"]) == (0, 0)
    for way, found in line["results"].items():
        assert found["runs"][0]["problems"] == [], way
        assert found["runs"][0]["twins"] == 2000, way
