#!/bin/sh
# What the image `fleet` does: make certificates for simulated cars, or drive them.
#
#   certificates CARS     car-000001 and on, signed by the authority in /run/authority (tls.crt, tls.key)
#   drive CARS DURATION   as Locust takes it, 600s; MQTT_URLS, MQTT_CA_FILE and MQTT_CERT_DIR say where to
set -eu
folder=/var/lib/fleet
usage() { echo "usage: certificates CARS | drive CARS DURATION" >&2; exit 2; }
case "${1:-}" in
certificates)
  [ $# = 2 ] || usage
  mkdir -p "$folder/ca/private" "$folder/ca/broker" "$folder/ca/cars"
  cp /run/authority/tls.key "$folder/ca/private/cars-ca.key"
  cp /run/authority/tls.crt "$folder/ca/broker/cars-ca.pem"
  # Only the key of the authority may sign: it does not stay where the cars are.
  trap 'rm -f "$folder/ca/private/cars-ca.key"' EXIT
  python -m twin.cli broker ca issue --vehicles "$2" --dir "$folder/ca" --days 2
  ;;
drive)
  [ $# = 3 ] || usage
  exec locust -f load-test/locustfile.py --headless --users "$2" --spawn-rate 100 --run-time "$3" \
    --cars-log "$folder/log" --mqtt 5
  ;;
*) usage ;;
esac
