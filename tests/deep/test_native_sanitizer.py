"""The fuzz of what is C, once more with sanitizers: they see a byte too far, which no answer shows."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.deep, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
SANITIZE = "-fsanitize=address,undefined -fno-wrapv"
TESTS = (
    "tests/property/test_native_fuzz.py",
    "tests/property/test_laws_intake.py",
    "tests/unit/test_native_bounds.py",
)


def _run(folder, *arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, **environment, "PYTHONPATH": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def _library(name):
    found = subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True)
    return found.strip()


def test_no_input_reads_or_writes_outside_what_there_is(tmp_path):
    """Nor does a number overflow. Objects are from malloc, where the sanitizer knows their ends."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "README.md", tmp_path)
    for part in ("twin", "tests", "load-test"):
        ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__", "fixtures")
        shutil.copytree(ROOT / part, tmp_path / part, ignore=ignored)
    setup = ("-c", "import setuptools; setuptools.setup()", "-q", "build_ext", "--inplace")
    built = _run(tmp_path, *setup, CFLAGS=f"{SANITIZE} -O1 -UNDEBUG", LDFLAGS=SANITIZE)
    assert built.returncode == 0, built.stdout[-4000:]
    ran = _run(
        tmp_path,
        *("-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", *TESTS),
        LD_PRELOAD=f"{_library('libasan.so')} {_library('libubsan.so')}",
        PYTHONMALLOC="malloc",
        ASAN_OPTIONS="detect_leaks=0",  # the interpreter's own
        UBSAN_OPTIONS="halt_on_error=1:print_stacktrace=1",
    )
    assert ran.returncode == 0, ran.stdout[-8000:]
