"""Commands that are processes of their own: the arguments go through, the exit code comes back."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import typer

from twin.cli import endpoints

_COMMANDS: Final = {
    "rebuild-view": "Make the read model in Redis anew from Kafka, while workers run, and compare.",
    "simulate": "Write a seeded history of cars, some of which fail, into Kafka.",
    "train": "Train autoencoder and LSTM from the Kafka log (tensorflow-io) and publish them.",
    "evaluate": "Measure a stored model on a topic, beside plain baselines.",
    "models": "List the stored models; `models promote VERSION` makes one the champion.",
}


def environment() -> dict[str, str]:
    """Addresses of the running stack for a child, where the environment does not name them."""
    env = dict(os.environ)
    for data_dir in endpoints.DATA_DIRS:
        found = endpoints.find([data_dir])
        if found is not None:
            env.setdefault("KAFKA_BOOTSTRAP", found.kafka)
            env.setdefault("REDIS_URL", found.redis)
            env.setdefault("MODEL_STORE", str((data_dir / "models").resolve()))
            return env
    env.setdefault("MODEL_STORE", str(Path(".cartwin/models").resolve()))
    return env


def register(app: typer.Typer) -> None:
    """Add each command; `--help` is answered by the process itself."""
    for name, text in _COMMANDS.items():
        app.command(
            name,
            help=text + " `--help` lists its options.",
            add_help_option=False,
            context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
        )(_forward(name))


def _forward(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - typer reads the signature
    def command(context: typer.Context) -> None:
        # `cartwin models` lists; `cartwin models promote VERSION` and the like go through.
        words = (context.args or ["list"]) if name == "models" else [name, *context.args]
        package = "twin" if name == "rebuild-view" else "models"
        arguments = [sys.executable, "-m", package, *words]
        try:
            code = subprocess.run(arguments, env=environment(), check=False).returncode  # noqa: S603
        except KeyboardInterrupt:
            code = 130
        raise typer.Exit(code)

    return command
