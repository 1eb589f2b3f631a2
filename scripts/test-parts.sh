#!/bin/sh
# Programs that the tests use and that no Python package carries: Mosquitto, and with the argument
# `deep` Chromium with its driver. Installed where we may; elsewhere their tests skip with a sentence.
set -eu
missing=
if ! command -v mosquitto >/dev/null 2>&1 && ! [ -x /usr/sbin/mosquitto ]; then
  missing=mosquitto
fi
if [ "${1:-}" = deep ] && ! { command -v chromium && command -v chromedriver; } >/dev/null 2>&1; then
  missing="$missing chromium chromium-driver"
fi
[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
  apt-get update -qq
  # Mosquitto's package starts its own broker where there is an init system; ours are started by the
  # tests. A list, one word a package.
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
  echo "Not installed, and only root may do it here: apt-get install $missing." \
    "Tests on them will be skipped" >&2
fi
