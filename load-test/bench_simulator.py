"""`python load-test/bench_simulator.py`: rows a second that one core simulates.

Half of the cars degrade, every mode alike; a step of 1 s gives a row of each car, one of 10 s is driven
in ten parts. The median of some rounds, by CPU time of this process, beside the wall clock's.
"""

import argparse
import statistics
import sys
import time
from typing import Any, Final

from bench_output import MISSED, OK, Screen, leave, machine, result
from models.simulator import MODES, SHIFTED, Cars, draw_faults

LIMIT: Final = 200_000
"""Rows a second of CPU at 1 s that must be reached."""
_INTERVALS_S: Final = (1.0, 10.0)


def main(words: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    options = _arguments(words)
    screen = Screen(options.json)
    results = {
        f"interval_{interval_s:g}s": measure(
            options.cars, options.steps, options.rounds, interval_s
        )
        for interval_s in _INTERVALS_S
    }
    ok = results["interval_1s"]["rows_per_cpu_s"] >= LIMIT
    screen.table("simulated rows", [{"interval": name, **row} for name, row in results.items()])
    result(
        {
            "bench": "simulator",
            "ok": ok,
            "machine": machine(),
            "params": {"cars": options.cars, "steps": options.steps, "rounds": options.rounds},
            "results": results,
            "ratio": {},
            "skipped": [],
        }
    )
    return OK if ok else MISSED


def measure(cars: int, steps: int, rounds: int, interval_s: float) -> dict[str, Any]:
    """Medians over `rounds` of `steps` steps each."""
    faults = draw_faults(cars, share=0.5, onset_s=(0.0, steps * interval_s), seed=1, modes=MODES)
    fleet = Cars(cars, seed=1, interval_s=interval_s, faults=faults, ranges=SHIFTED, dropout=0.002)
    fleet.step()
    cpu, wall = [], []
    for _ in range(rounds):
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        for _ in range(steps):
            fleet.step()
        cpu.append(cars * steps / (time.process_time() - cpu_s))
        wall.append(cars * steps / (time.perf_counter() - wall_s))
    return {
        "rows_per_cpu_s": round(statistics.median(cpu)),
        "rows_per_s": round(statistics.median(wall)),
        "least_per_cpu_s": round(min(cpu)),
    }


def _arguments(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cars", type=int, default=10_000, help="cars stepped together (10000)")
    parser.add_argument("--steps", type=int, default=20, help="steps a round (20)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds (5)")
    parser.add_argument("--json", action="store_true", help="the JSON line alone")
    options = parser.parse_args(words)
    for name in ("cars", "steps", "rounds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} {getattr(options, name)}: at least 1 is accepted")
    return options


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
