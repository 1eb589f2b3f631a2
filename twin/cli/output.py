"""What people and programs read: sentences on stderr, results on stdout, exit codes.

Exit codes: 0 ok, 1 a figure or a check was missed, 2 the command was used wrongly. Colours only on a
terminal (rich decides), JSON lines for programs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NoReturn

import orjson
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

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


@contextmanager
def bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal, nothing elsewhere; call what it gives with how many of how many."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as shown:
        task = shown.add_task(what, total=None)
        yield lambda done, of: shown.update(task, completed=done, total=of)


def fail(sentence: str, code: int = MISSED) -> NoReturn:
    """Say what went wrong and end with `code`."""
    console.print(f"cartwin: {sentence}", style="red", markup=False, soft_wrap=True)
    raise typer.Exit(code)
