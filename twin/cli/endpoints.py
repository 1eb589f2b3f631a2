"""Where the running stack is: options, environment, or the file that `cartwin up` keeps."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from twin.cli.output import USAGE, fail
from twin.local import Endpoints, running

DATA_DIRS: Final = (Path(".cartwin"), Path(".cartwin-demo"))


def find(data_dirs: Iterable[Path] = DATA_DIRS) -> Endpoints | None:
    """The stack that runs on one of the usual data directories."""
    for data_dir in data_dirs:
        endpoints = running(data_dir)
        if endpoints is not None:
            return endpoints
    return None


def api_url(given: str | None) -> str:
    """The API's address; ends the command with a sentence when none is known."""
    if given:
        return given.rstrip("/")
    endpoints = find()
    if endpoints is None or endpoints.api is None:
        fail(
            "no running stack found here: start one with `cartwin up`, or name it with --api URL",
            USAGE,
        )
    return endpoints.api
