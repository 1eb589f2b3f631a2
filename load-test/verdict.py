"""The independent checker: did everything that the cars sent arrive, and does the loop tell the truth?

    python load-test/verdict.py --cars-log DIR --kafka HOST:PORT [--json]

Run it when the fleet has ended. It reads the car-side logs and Kafka, waits until nothing more is
open or `--deadline-s` is over, and says what is missing. Exit code 0 = all as it should be, 1 = a
figure or check was missed, 2 = an input cannot be read. It imports nothing of the services; a Kafka
that asks for TLS or SASL is reached by the same variables (KAFKA_SECURITY_PROTOCOL, ..).
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import orjson

from verdict_accounts import account
from verdict_read import KafkaLog, Unreadable, avro_schema, car_logs
from verdict_sides import Evidence

SCHEMA = Path(__file__).resolve().parent.parent / "twin/wire/schemas/telemetry-v1.avsc"
PAUSE_S = 0.5


def judge(cars_log: Path, kafka: str, schema: Path, deadline_s: float) -> dict[str, Any]:
    """The JSON line, `ok` first. Raises `Unreadable`."""
    cars = car_logs(cars_log)
    evidence = Evidence(cars.vehicles)
    log = KafkaLog(kafka, avro_schema(schema), evidence)
    try:
        log.read()
        verdict = account(cars, evidence)
        deadline = time.monotonic() + deadline_s
        while verdict.pending and time.monotonic() < deadline:
            time.sleep(PAUSE_S)  # between two looks at what the services are still doing
            log.read()
            verdict = account(cars, evidence)
    finally:
        log.close()
    return verdict.line()


def table(line: dict[str, Any]) -> str:
    """The line for people."""
    rows = [f"{name:>20}  {_text(value)}" for name, value in line.items() if name != "problems"]
    return "\n".join([*rows, *(f"  problem: {problem}" for problem in line["problems"])])


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="verdict", description=__doc__.partition("\n")[0])
    parser.add_argument("--cars-log", type=Path, required=True, help="folder of car-side logs")
    parser.add_argument("--kafka", required=True, help="brokers, host:port,..")
    parser.add_argument("--schema", type=Path, default=SCHEMA, help="Avro schema of telemetry")
    parser.add_argument("--deadline-s", type=float, default=60, help="longest wait for the rest")
    parser.add_argument("--json", action="store_true", help="print one JSON line on stdout")
    options = parser.parse_args(arguments)
    try:
        line = judge(options.cars_log, options.kafka, options.schema, options.deadline_s)
    except Unreadable as error:
        print(f"verdict: {error}", file=sys.stderr)
        return 2
    print(table(line), file=sys.stderr)
    if options.json:
        print(orjson.dumps(line).decode())
    return 0 if line["ok"] else 1


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{state} {number}" for state, number in value.items()) or "none"
    return str(value)


if __name__ == "__main__":
    raise SystemExit(main())
