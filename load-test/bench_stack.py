"""What every bench of the worker does around its measuring: options, a stack of its own, its end.

command line -> stack under DATA_DIR/NAME -> measure -> JSON line and exit code
"""

import argparse
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from confluent_kafka import KafkaException

from bench_broker import BrokerFailed
from bench_output import MISSED, OK, STOPPED, Screen, fail, result
from bench_worker import WorkerFailed
from twin.local import Endpoints, LocalError, Options, Stack
from twin.local.options import FREE_PORTS


def common_options(parser: argparse.ArgumentParser) -> None:
    """Options that all of them have."""
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".cartwin-bench"), help="where everything is kept"
    )
    parser.add_argument("--json", action="store_true", help="only the JSON line")


def at_least(
    parser: argparse.ArgumentParser, options: argparse.Namespace, least: dict[str, int]
) -> None:
    """End with 2 and a sentence when a number is too small."""
    for name, low in least.items():
        if getattr(options, name) < low:
            parser.error(f"--{name} {getattr(options, name)}: at least {low} is accepted")


def on_stack(
    name: str,
    options: argparse.Namespace,
    measure: Callable[[Stack, Endpoints, Screen], dict[str, Any]],
    **more: Any,
) -> int:
    """Measure on a fresh stack without our processes, and tell the result; returns the exit code.

    `more`: fields of `twin.local.Options`.
    """
    screen = Screen(options.json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    stack = Stack(
        Options(
            data_dir=options.data_dir / name, fresh=True, ports=FREE_PORTS, processes=(), **more
        ),
        lambda part, line: screen.say(f"{part}: {line}"),
    )
    try:
        line = measure(stack, stack.start(), screen)
    except (LocalError, BrokerFailed, WorkerFailed) as error:
        return fail(str(error))
    except KafkaException as error:
        return fail(f"Kafka does not answer as it should: {error.args[0].str()}")
    except httpx.HTTPError as error:
        return fail(f"the API does not answer: {error!r}")
    except KeyboardInterrupt:
        return fail("stopped", STOPPED)
    finally:
        stack.stop()
    result(line)
    return OK if line["ok"] else MISSED
