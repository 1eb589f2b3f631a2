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
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
echo "installing what requirements.lock pins into $venv (about a minute)"
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
