"""FILE, FOLDER or ARCHIVE -> the recordings in it, each a CSV file that can be read twice.

An archive is unpacked into a temporary folder first: the recordings of all cars are read side by
side, in the order of time, which a compressed stream cannot give. Nothing of an archive's names is
used as a path, and its size is bounded, since an archive may come from anywhere.
"""

import lzma
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, Final

from twin.wire.errors import CartwinError

MAX_FILES: Final = 500
"""All recordings are open at the same time; a process may usually open 1,024 files."""
MAX_ARCHIVE_BYTES: Final = 4 * 2**30
ACCEPTED: Final = "a .csv file, a folder of .csv files, or a .tar, .tar.gz or .tar.xz of them"

_COPY_BYTES: Final = 2**20


class BadRecording(CartwinError):
    """What was given to replay cannot be replayed; names file (and line) and what is accepted."""


@dataclass(frozen=True, slots=True)
class Source:
    """One recording: `name` for messages, `stem` = file name without .csv, `path` to read."""

    name: str
    stem: str
    path: Path


@contextmanager
def sources(given: Path) -> Iterator[list[Source]]:
    """The recordings of FILE, FOLDER or ARCHIVE, by name; an archive is unpacked until the end.

    Raises `BadRecording`.
    """
    if given.is_dir():
        found = islice(_files_below(given), MAX_FILES + 1)
        yield _checked(given, [_source(path) for path in found])
    elif not given.is_file():
        raise BadRecording(f"{given} does not exist; accepted is {ACCEPTED}")
    elif given.suffix.lower() == ".csv":
        yield [_source(given)]
    elif _is_tar(given):
        with tempfile.TemporaryDirectory(prefix="cartwin-replay-") as folder:
            yield _checked(given, list(_unpack(given, Path(folder))))
    else:
        raise BadRecording(
            f"{given} is neither a .csv file nor a tar archive; accepted is {ACCEPTED}"
        )


def _source(path: Path) -> Source:
    return Source(str(path), path.stem, path)


def _files_below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() == ".csv" and path.is_file())


def _checked(given: Path, found: list[Source]) -> list[Source]:
    if not found:
        raise BadRecording(f"{given} holds no .csv file; accepted is {ACCEPTED}")
    _bounded(given, len(found))
    return sorted(found, key=lambda source: source.name)


def _bounded(given: Path, files: int) -> None:
    if files > MAX_FILES:
        raise BadRecording(f"{given} holds more than {MAX_FILES} .csv files; replay it in parts")


def _is_tar(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError):
        # Python tells a damaged compressed stream apart from a file of another kind only by these.
        raise BadRecording(f"{path} is damaged or cannot be read; accepted is {ACCEPTED}") from None


def _unpack(archive: Path, folder: Path) -> Iterator[Source]:
    files = 0
    left = MAX_ARCHIVE_BYTES
    try:
        with tarfile.open(archive, "r|*") as tar:
            for member in tar:
                name = f"{archive}:{member.name}"
                left -= member.size
                if left < 0:
                    raise BadRecording(
                        f"{archive} unpacks to more than {MAX_ARCHIVE_BYTES // 2**30} GiB;"
                        " replay it in parts"
                    )
                inner = PurePosixPath(member.name)
                if member.isdir() or inner.suffix.lower() != ".csv":
                    continue
                if not member.isreg() or inner.is_absolute() or ".." in inner.parts:
                    raise BadRecording(
                        f"{name} is not a plain file inside the archive; links, devices and paths"
                        " that lead out of it are not accepted"
                    )
                files += 1
                _bounded(archive, files)
                content = tar.extractfile(member)
                assert content is not None  # a regular member has content
                target = folder / f"{files}.csv"
                _copy(content, target)
                yield Source(name, inner.stem, target)
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise BadRecording(f"{archive} is damaged or cannot be unpacked: {error}") from None


def _copy(content: IO[bytes], target: Path) -> None:
    with target.open("wb") as out:
        while block := content.read(_COPY_BYTES):
            out.write(block)
