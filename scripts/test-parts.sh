#!/bin/sh
# Servers that the tests use and that no Python package carries: Mosquitto.
# Installed where we may; elsewhere its tests skip with a sentence.
set -eu
if command -v mosquitto >/dev/null 2>&1 || [ -x /usr/sbin/mosquitto ]; then
  exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends mosquitto >/dev/null
  # The package starts its own broker where there is an init system; ours are started by the tests.
else
  echo "Mosquitto is not installed, and only root may do it here (apt-get install mosquitto):" \
    "tests on it will be skipped" >&2
fi
