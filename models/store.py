"""Where stored models lie: a folder, or an object store that fsspec reaches by URL.

MODEL_STORE is a folder (`.cartwin/models`, a shared mount), or `s3://bucket/path`, `gs://bucket/path`,
`file:///path`, `memory://path`. An object store has no rename that makes a folder appear at once, so
the manifest is written last: what has no manifest is not there. Readers copy a model into a local
cache, in a folder named by the sha256 of its manifest, which names the sha256 of every other file: a
copy is as good as the original, and is checked byte by byte before each use.

fsspec and what it needs for a scheme are imported when a URL is used, never for a folder.
"""

import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from models.errors import ArtefactRefused, StoreUnusable
from twin.kit.settings import masked

SCHEMES: Final = {"s3": "s3fs", "gs": "gcsfs", "file": "fsspec", "memory": "fsspec"}
"""Schemes that are accepted, and the package that each needs."""
CACHED: Final = 8
"""So many models stay in the cache, the latest used."""


@dataclass(frozen=True, slots=True)
class Remote:
    """An object store: `url` without a slash at the end, `cache` a local folder."""

    url: str
    cache: Path

    def __str__(self) -> str:
        return masked(self.url)

    def versions(self) -> list[str]:
        """Names of all folders, sorted."""
        with self._reached() as (files, root):
            if not files.exists(root):
                return []
            return sorted(PurePosixPath(name).name for name in files.ls(root, detail=False))

    def read(self, version: str, name: str) -> bytes:
        """A file of a version; raises `FileNotFoundError` when it is not there."""
        with self._reached() as (files, root):
            data: bytes = files.cat_file(f"{root}/{version}/{name}")
            return data

    def write(self, folder: Path, version: str, names: Sequence[str]) -> None:
        """Copy files of a local folder, in the order of `names`."""
        with self._reached() as (files, root):
            for name in names:
                target = f"{root}/{version}/{name}"
                files.makedirs(target.rpartition("/")[0], exist_ok=True)
                files.put_file(str(folder / name), target)

    def copy(
        self, version: str, names: Sequence[str], sha256: str, first: dict[str, bytes]
    ) -> Path:
        """The cached folder `sha256` with files `names` of a version, and `first` as given.

        What is in the cache already is left as it is: whoever uses it checks it.
        """
        folder = self.cache / sha256
        if folder.is_dir():
            folder.touch()
            return folder
        for name in names:
            if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
                raise ArtefactRefused(f"{version}: file {name[:80]!r} lies outside of its folder")
        self.cache.mkdir(parents=True, exist_ok=True)
        draft = self.cache / f".draft-{secrets.token_hex(8)}"
        draft.mkdir()
        try:
            with self._reached() as (files, root):
                for name in names:
                    (draft / name).parent.mkdir(parents=True, exist_ok=True)
                    files.get_file(f"{root}/{version}/{name}", str(draft / name))
            for name, data in first.items():
                (draft / name).write_bytes(data)
            if not folder.is_dir():  # else another process was faster
                draft.rename(folder)
        except FileNotFoundError as error:
            raise ArtefactRefused(f"{version}: a file is missing in {self} ({error})") from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
        self._prune()
        return folder

    def _prune(self) -> None:
        held = sorted(self.cache.iterdir(), key=lambda one: one.stat().st_mtime, reverse=True)
        for old in held[CACHED:]:
            shutil.rmtree(old, ignore_errors=True)

    @contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        scheme = self.url.partition("://")[0]
        try:
            import fsspec  # noqa: PLC0415

            files, root = fsspec.core.url_to_fs(self.url)
        except ImportError as error:
            raise StoreUnusable(
                f"model store {self} needs the package {SCHEMES[scheme]}, which is not installed"
            ) from error
        except Exception as error:
            raise StoreUnusable(f"model store {self} cannot be opened: {error!r:.200}") from error
        try:
            yield files, root.rstrip("/")
        except (FileNotFoundError, ArtefactRefused):
            raise
        except Exception as error:  # each kind of store raises its own
            raise StoreUnusable(f"model store {self} does not answer: {error!r:.200}") from error


Location = Path | Remote


def location(text: str, cache: Path) -> Location:
    """What MODEL_STORE means; raises ValueError with a sentence for a URL that is not accepted."""
    scheme, slashes, rest = text.partition("://")
    if not slashes:
        return Path(text)
    if scheme not in SCHEMES or not rest.strip("/"):
        raise ValueError(
            f"a folder, or a URL that begins {', '.join(f'{known}://' for known in SCHEMES)} and"
            " names a place there, is accepted"
        )
    return Remote(text.rstrip("/"), cache)
