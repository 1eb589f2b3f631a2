"""`python -m twin worker|api|rebuild-view`: start one process of this package.

The process is imported inside its branch, so that an image needs only the paths it runs.
"""

import argparse
import sys
from typing import Any


def main(arguments: list[str] | None = None) -> int:
    """Run the named process until it is told to stop; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m twin",
        description="Processes of the twin service. Settings come from the environment;"
        " a wrong one stops the process with a sentence that names it.",
        epilog="worker reads KAFKA_BOOTSTRAP, REDIS_URL, POLICY_FILE, HEALTH_PORT and more, which"
        " `worker --help` lists; api reads KAFKA_BOOTSTRAP, REDIS_URL, API_HOST, API_PORT; "
        "rebuild-view reads KAFKA_BOOTSTRAP, REDIS_URL; all read KAFKA_SECURITY_PROTOCOL,"
        " KAFKA_SSL_CA, KAFKA_SASL_*.",
    )
    processes = parser.add_subparsers(dest="process", required=True, metavar="process")
    worker = processes.add_parser("worker", help="Faust, keeps one twin per car", add_help=False)
    worker.add_argument("-h", "--help", action=_WorkerHelp, nargs=0, help="show this and end")
    processes.add_parser("api", help="REST and the page")
    rebuild = processes.add_parser(
        "rebuild-view",
        help="make the read model in Redis anew from Kafka, while workers run; then compare them",
        description="Makes the read model in Redis anew from the topics twins and ledger, while workers"
        " run, and compares the two at the end. Exit code 0: they agree, 1: they do not.",
    )
    rebuild.add_argument("--json", action="store_true", help="print the result as one JSON line")
    chosen = parser.parse_args(arguments)
    if chosen.process == "rebuild-view":
        from twin.rebuild import main as rebuild_view  # noqa: PLC0415

        return rebuild_view(json=chosen.json)
    if chosen.process == "worker":
        from twin.worker import main as run  # noqa: PLC0415
    else:
        from twin.api.server import main as run  # noqa: PLC0415
    return run()


class _WorkerHelp(argparse.Action):
    """Help that has the settings in it; they are imported only for it."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from twin.kit.settings import described  # noqa: PLC0415
        from twin.settings import WorkerSettings  # noqa: PLC0415

        sys.stdout.write(parser.format_help() + "\nsettings, from the environment:\n")
        for name, default, accepted, meaning in described(WorkerSettings):
            about = f"{meaning} ({accepted})" if accepted else meaning
            sys.stdout.write(f"  {name}={default}\n      {about}\n")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
