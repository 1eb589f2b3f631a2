"""What a process costs, from /proc: CPU time and resident memory of it and its children. Linux only."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_UTIME: Final = 11
"""Index of utime in /proc/PID/stat behind the command's name; stime, cutime, cstime follow."""


def tree(pid: int) -> Iterator[int]:
    """The process and all below it that live now; nothing when it is gone."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children = task.read_text().split()
        except OSError:
            continue
        for child in children:
            yield from tree(int(child))


def cpu_s(pid: int) -> float:
    """User and system time so far, in seconds, of the process, its children and those reaped."""
    ticks = 0
    for one in tree(pid):
        try:
            stat = Path(f"/proc/{one}/stat").read_text()
        except OSError:
            continue
        # The name may hold spaces and brackets: what follows its last bracket is fixed.
        fields = stat.rpartition(")")[2].split()
        own = slice(_UTIME, _UTIME + (4 if one == pid else 2))
        ticks += sum(map(int, fields[own]))
    return ticks / _TICKS_PER_S


def resident_bytes(pid: int) -> int:
    """Resident memory now of the process and its children."""
    pages = 0
    for one in tree(pid):
        try:
            pages += int(Path(f"/proc/{one}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * _PAGE
