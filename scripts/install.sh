#!/bin/sh
# Make the virtual environment $1 with everything that requirements.lock pins, and cartwin itself.
set -eu
venv=$1
python=${PYTHON:-python3.11}

if ! command -v "$python" >/dev/null 2>&1; then
  echo "cartwin needs Python 3.11: no '$python' here. Debian/Ubuntu: apt-get install python3.11 python3.11-venv;" \
    "or name yours: make PYTHON=/path/to/python3.11" >&2
  exit 1
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$version" != 3.11 ]; then
  echo "cartwin needs Python 3.11 (TensorFlow I/O has no newer build): '$python' is $version" >&2
  exit 1
fi
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
  echo "Python's venv module is missing: apt-get install python3.11-venv" >&2
  exit 1
fi
# The hot path is C. A compiler (setuptools takes the one that made Python) and Python's headers are
# all that its build needs.
compiler=${CC:-$("$python" -c 'import sysconfig; print(sysconfig.get_config_var("CC"))')}
header=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["include"] + "/Python.h")')
missing=
command -v "${compiler%% *}" >/dev/null 2>&1 || missing="gcc libc6-dev"
[ -e "$header" ] || missing="$missing python3.11-dev"
if [ -n "$missing" ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing what compiles the hot path: apt-get install $missing"
    apt-get update -qq
    # A list, one word a package.
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
  else
    echo "cartwin's hot path is C, and the compiler '${compiler%% *}' or Python's headers ($header) are" \
      "missing. Debian/Ubuntu: as root, apt-get install $missing; or name your compiler: make CC=clang" >&2
    exit 1
  fi
fi
# pip would say hundreds of lines, or nothing for minutes.
step() { printf '%s  %s\n' "$(date +%H:%M:%S)" "$*"; }
if [ ! -x "$venv/bin/python" ]; then
  step "1/3 making the virtual environment $venv with $("$python" --version)"
  "$python" -m venv "$venv"
else
  step "1/3 the virtual environment $venv is there"
fi
step "2/3 installing the $(grep -c '==' requirements.lock) packages that requirements.lock pins: 1.9 GB, one to two minutes or more"
# The lock is complete: without resolving anew pip is quicker, and takes what uv has found.
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
step "3/3 compiling the hot path (C) and installing cartwin"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
step "done: $venv/bin/cartwin --help"
