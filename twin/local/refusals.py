"""Whom a broker refused to write to a topic, counted from its log: `cartwin broker refused LOG`.

A car with MQTT 5 reads it in the PUBACK (0x87). Mosquitto tells it nowhere but in its log (nothing under
$SYS), and there only with `--trace`, which is a line for each packet; HiveMQ's extension writes a line a
refusal. So a metric has to come from the log, whose lines `Tail` gives as they are added.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, Self

_LINES: Final = (
    re.compile(r"Denied PUBLISH from (?P<client>.+?) \(d[01], q[012], "),
    re.compile(r"^refused: (?P<client>\S+) wrote "),
)
_LONGEST: Final = 65_536
"""Bytes of a line; what is longer is read as several."""


def count(lines: Iterable[str]) -> Counter[str]:
    """Refused messages by client id, from lines of Mosquitto's or HiveMQ's log."""
    found: Counter[str] = Counter()
    for line in lines:
        for pattern in _LINES:
            match = pattern.search(line)
            if match:
                found[match["client"]] += 1
    return found


class Tail:
    """What is added to a log from now on, also when it is rotated; use with `with`.

    Moved away and made anew: who writes goes on with the old file until it is told, so that one is
    read until there is something in the new one. Cut to nothing (copytruncate): read from its start.
    A log that is not there yet is read from its start when it is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rest = b""
        self._file: BinaryIO | None = None
        if self._open() is not None and self._file is not None:
            self._file.seek(0, os.SEEK_END)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def there(self) -> bool:
        """Whether there is a log to read."""
        return self._file is not None

    def lines(self) -> Iterator[str]:
        """The lines that were completed since the last call. Raises `OSError`."""
        file = self._file or self._open()
        while file is not None:
            yield from self._read(file)
            if not self._replaced(file):
                return
            # The new one is written to, so the old one is complete.
            yield from self._read(file)
            if self._rest:
                yield self._rest.decode(errors="replace")
            file.close()
            file = self._open()

    def _open(self) -> BinaryIO | None:
        self._rest = b""
        try:
            self._file = self._path.open("rb")
        except FileNotFoundError:
            self._file = None
        return self._file

    def _read(self, file: BinaryIO) -> Iterator[str]:
        end = os.fstat(file.fileno()).st_size
        if end < file.tell():
            file.seek(0)
            self._rest = b""
        while (left := end - file.tell()) > 0 and (part := file.read(min(left, _LONGEST))):
            *whole, self._rest = (self._rest + part).split(b"\n")
            if len(self._rest) > _LONGEST:
                whole.append(self._rest)
                self._rest = b""
            for line in whole:
                yield line.decode(errors="replace")

    def _replaced(self, file: BinaryIO) -> bool:
        try:
            now = self._path.stat()
        except FileNotFoundError:
            return False
        return bool(now.st_size) and not os.path.samestat(now, os.fstat(file.fileno()))
