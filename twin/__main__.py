"""`python -m twin worker|api`: start one process of this package.

The process is imported inside its branch, so that an image needs only the paths it runs.
"""

import argparse
import sys


def main(arguments: list[str] | None = None) -> int:
    """Run the named process until it is told to stop; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m twin",
        description="Processes of the twin service. Settings come from the environment;"
        " a wrong one stops the process with a sentence that names it.",
        epilog="worker reads KAFKA_BOOTSTRAP, REDIS_URL, POLICY_FILE, HEALTH_PORT; "
        "api reads KAFKA_BOOTSTRAP, REDIS_URL, API_HOST, API_PORT.",
    )
    parser.add_argument(
        "process",
        choices=["worker", "api"],
        help="worker: Faust, keeps one twin per car; api: REST and the page",
    )
    process = parser.parse_args(arguments).process
    if process == "worker":
        from twin.worker import main as run  # noqa: PLC0415
    else:
        from twin.api.server import main as run  # noqa: PLC0415
    return run()


if __name__ == "__main__":
    sys.exit(main())
