"""Costs of processes, and how the command line runs a bench."""

import os
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import bench_memory
from bench_process import cpu_s, resident_bytes, tree
from twin.cli import app, bench

runner = CliRunner()


BUSY = """
import time
while time.process_time() < 0.3:
    sum(range(1000))
print(time.process_time(), flush=True)
input()
"""


def test_cpu_time_of_a_process_is_what_python_says():
    """User and system time, up to the ticks of the kernel."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", BUSY], stdin=pipe, stdout=pipe) as child:
        said = float(child.stdout.readline())
        assert cpu_s(child.pid) == pytest.approx(said, abs=0.05)
        child.communicate(b"\n")


def test_children_count_to_their_parent():
    """A peer may work in processes of its own."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert child.pid in tree(os.getpid())
        assert resident_bytes(os.getpid()) > resident_bytes(child.pid) > 0
        child.communicate(b"\n")


def test_a_process_that_is_gone_costs_nothing():
    """It may end between two looks."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert cpu_s(child.pid) == 0
    assert resident_bytes(child.pid) == 0


def test_all_benches_are_listed():
    """The help of `cartwin bench` names them."""
    done = runner.invoke(app, ["bench", "--help"])
    assert all(name in done.output for name in ("loop", "twin", "recovery", "memory"))


@pytest.mark.parametrize("name", ["twin", "recovery", "memory"])
def test_arguments_go_to_the_program_and_its_exit_code_comes_back(name, monkeypatch):
    """`--help` too."""
    asked = []
    monkeypatch.setattr(bench, "_run", lambda argv: asked.append(argv) or 1)
    done = runner.invoke(app, ["bench", name, "--help", "--vehicles", "5"])
    assert done.exit_code == 1
    assert asked[0][0] == sys.executable
    assert asked[0][1].endswith(f"load-test/bench_{name}.py")
    assert asked[0][2:] == ["--help", "--vehicles", "5"]


def test_bytes_above_a_limit_are_missed():
    """For the worker, the restored worker and Redis."""
    assert bench_memory.missed_limits({"worker": 6144, "worker_restored": 1, "redis": 3072}) == []
    assert len(bench_memory.missed_limits(dict.fromkeys(bench_memory.LIMITS, 9999))) == 3
