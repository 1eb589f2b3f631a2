"""What people and programs read: sentences on stderr, results on stdout, exit codes.

Exit codes: 0 ok, 1 a figure or a check was missed, 2 the command was used wrongly. Colours only on a
terminal (rich decides), JSON lines for programs.
"""

from typing import Any, Final, NoReturn

import orjson
import typer
from rich.console import Console

OK: Final = 0
MISSED: Final = 1
USAGE: Final = 2

console = Console(stderr=True, highlight=False)
"""For people: progress, explanations, errors."""


def result(value: Any) -> None:
    """One JSON line on stdout."""
    print(orjson.dumps(value).decode(), flush=True)


def say(text: str) -> None:
    """A line for people."""
    console.print(text, markup=False, soft_wrap=True)


def fail(sentence: str, code: int = MISSED) -> NoReturn:
    """Say what went wrong and end with `code`."""
    console.print(f"cartwin: {sentence}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)
