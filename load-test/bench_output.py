"""How a bench speaks: sentences and progress on stderr, one JSON line on stdout, exit codes.

Exit codes: 0 ok, 1 a figure or a check was missed, 2 wrong usage, 130 stopped by its user. Colours and
bars only on a terminal.
"""

import os
import platform
import sys
from pathlib import Path
from typing import Any, Final, NoReturn

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

OK: Final = 0
MISSED: Final = 1
STOPPED: Final = 130

_console = Console(stderr=True, highlight=False)


class Screen:
    """What a person sees; nothing when only the JSON line is wanted."""

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet

    def say(self, text: str) -> None:
        """A line for people."""
        if not self._quiet:
            _console.print(text, markup=False, soft_wrap=True)

    def table(self, title: str, rows: list[dict[str, Any]]) -> None:
        """Rows with equal columns."""
        if self._quiet or not rows:
            return
        table = Table(title=title, title_justify="left")
        for column in rows[0]:
            table.add_column(column, justify="left" if column == next(iter(rows[0])) else "right")
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        _console.print(table)

    def progress(self) -> Progress:
        """Bars that go when they are done."""
        return Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=_console,
            transient=True,
            disable=self._quiet or not _console.is_terminal,
        )


def result(value: dict[str, Any]) -> None:
    """The JSON line."""
    sys.stdout.write(orjson.dumps(value).decode() + "\n")
    sys.stdout.flush()


def fail(sentence: str, code: int = MISSED) -> int:
    """Say what went wrong; returns `code`."""
    _console.print(f"cartwin: {sentence}", style="red", markup=False, soft_wrap=True)
    return code


def leave(code: int) -> NoReturn:
    """End at once: a Kafka client may wait for ever for a broker that we have stopped ourselves."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    model = ""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**30
    except OSError:
        memory = 0
    return {
        "cores": os.cpu_count(),
        "cpu": model,
        "memory_gb": memory,
        "python": platform.python_version(),
        "kernel": platform.release(),
    }
