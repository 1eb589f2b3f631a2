"""Commands that are processes of their own: the arguments go through, the exit code comes back."""

import os
import re
import shutil
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
    "evaluate": "Train and judge the models on simulated cars, NASA's engines and a real car.",
    "models": "List the stored models; `models promote|compare|rollback|retire` change who scores.",
}


_EVALUATIONS: Final = frozenset({"fleet", "cmapss", "carobd"})
"""Evaluations that train what they judge: `cartwin evaluate fleet` is `python -m models.fleet`."""
_STORED: Final = ("--topic", "--truth-topic", "--version", "--store", "--max-rows")
"""Options of `python -m models evaluate`, which measures a stored model."""
_HELP: Final = frozenset({"--help", "-h"})
# What a process calls itself, and what one types here; `python -m models scorer` is no command of ours.
_NAMES: Final = (
    (re.compile(r"python -m models(?= (?:simulate|train|evaluate)\b)"), "cartwin"),
    (
        re.compile(r"python -m models(?= (?:list|compare|promote|rollback|retire)\b)"),
        "cartwin models",
    ),
    (re.compile(r"python -m models\.(?=(?:fleet|cmapss|carobd)\b)"), "cartwin evaluate "),
    (re.compile(r"python -m twin(?= rebuild-view\b)"), "cartwin"),
)


def as_typed(text: str) -> str:
    """Help of a process with the names that its commands have here."""
    for name, ours in _NAMES:
        text = name.sub(ours, text)
    return text


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


def _evaluation(words: list[str]) -> tuple[str, list[str]]:
    """One by name, a stored model where an option names one or its topic, else all."""
    if words and words[0] in _EVALUATIONS:
        return f"models.{words[0]}", words[1:]
    if any(word.startswith(_STORED) for word in words):
        return "models", ["evaluate", *words]
    return "models.evaluations", words


def _forward(name: str):  # type: ignore[no-untyped-def]  # noqa: ANN202 - typer reads the signature
    def command(context: typer.Context) -> None:
        # `cartwin models` lists; `cartwin models promote VERSION` and the like go through.
        words = (context.args or ["list"]) if name == "models" else [name, *context.args]
        package = "twin" if name == "rebuild-view" else "models"
        if name == "evaluate":
            package, words = _evaluation(context.args)
        arguments = [sys.executable, "-m", package, *words]
        wants_help = not _HELP.isdisjoint(context.args)
        env = environment()
        if wants_help:
            env.setdefault("COLUMNS", str(shutil.get_terminal_size().columns))
        try:
            done = subprocess.run(  # noqa: S603 - our own command line
                arguments, env=env, check=False, stdout=subprocess.PIPE if wants_help else None
            )
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        if wants_help:
            sys.stdout.write(as_typed(done.stdout.decode()))
        raise typer.Exit(done.returncode)

    return command
