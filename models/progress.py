"""How far a long command is: a bar on a terminal, a log line every few seconds otherwise.

All on stderr, so that stdout holds the result and nothing else.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Final, Literal, get_args

from twin.kit import logs

Form = Literal["auto", "bar", "lines", "none"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)

Advance = Callable[..., None]
"""`advance(n, note="")`: n more steps are done; the note says what the last one brought."""

_EVERY_S: Final = 5.0
log = logs.get(__name__)


@contextmanager
def steps(what: str, total: int, form: Form = "auto") -> Iterator[Advance]:
    """Show `what` advancing towards `total` while the block runs."""
    if form == "auto":
        # An image without rich still tells how far it is.
        form = "bar" if sys.stderr.isatty() and find_spec("rich") else "lines"
    if form == "bar":
        with _bar(what, total) as advance:
            yield advance
    else:
        lines = _Lines(what, total, silent=form == "none")
        yield lines.advance
        lines.finish()


class _Lines:
    def __init__(self, what: str, total: int, *, silent: bool) -> None:
        self._what, self._total, self._silent = what, total, silent
        self._done = 0
        self._note = ""
        self._began = self._told = time.monotonic()

    def advance(self, n: int, note: str = "") -> None:
        self._done += n
        self._note = note or self._note
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            self._tell(self._what)

    def finish(self) -> None:
        self._tell(f"{self._what}: done")

    def _tell(self, event: str) -> None:
        if self._silent:
            return
        seconds = round(time.monotonic() - self._began, 1)
        facts = {"note": self._note} if self._note else {}
        log.info(event, done=self._done, of=self._total, seconds=seconds, **facts)


@contextmanager
def _bar(what: str, total: int) -> Iterator[Advance]:
    # Only a person at a terminal needs it, so only then it is imported.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description:28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, note="")

        def advance(n: int, note: str = "") -> None:
            bar.advance(task, n)
            if note:
                bar.update(task, note=note)

        yield advance
