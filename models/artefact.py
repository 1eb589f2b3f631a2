"""A trained model as one folder that proves what it is: published atomically, verified before use.

`<store>/<version>/` holds two SavedModels, the golden vectors and `manifest.json`: thresholds,
debounce, scaler, features, training offsets, seeds, metrics, versions and the sha256 of every file.
The registry carries the manifest's own sha256, so a record on topic `models` pins every byte. The
trainer writes, the scorer only reads; a folder that lacks a file, has one more or has another byte
is refused. No TensorFlow here: hashes and JSON.
"""

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from models.errors import ArtefactRefused

FORMAT: Final = 1
NAME: Final = "engine"
MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.npz"
AUTOENCODER: Final = "autoencoder"
LSTM: Final = "lstm"

_VERSION = re.compile(rf"{NAME}-\d{{8}}T\d{{6}}Z-[0-9a-f]{{8}}")


@dataclass(frozen=True, slots=True)
class Artefact:
    """A stored model: its folder, its manifest, and the sha256 of the manifest's bytes."""

    folder: Path
    manifest: dict[str, Any]
    sha256: str

    @property
    def version(self) -> str:
        """`engine-<utc time>-<hash8>`, also the folder's name."""
        return self.folder.name


def publish(
    store: Path, manifest: dict[str, Any], fill: Callable[[Path], None], *, now_ms: int
) -> Artefact:
    """Store a model: `fill` writes its files into a hidden folder, one rename makes it appear.

    `manifest` gains format, name, version, created_at and files. A crash leaves no half artefact
    under a version's name.
    """
    store.mkdir(parents=True, exist_ok=True)
    draft = store / f".draft-{secrets.token_hex(8)}"
    draft.mkdir()
    try:
        fill(draft)
        files = {name: _sha256(draft / name) for name in _files(draft)}
        version = f"{NAME}-{_stamp(now_ms)}-{_digest(orjson.dumps([manifest, files]))[:8]}"
        manifest = {
            "format": FORMAT,
            "name": NAME,
            "version": version,
            "created_at": now_ms,
            **manifest,
            "files": files,
        }
        data = orjson.dumps(manifest, option=orjson.OPT_INDENT_2)
        (draft / MANIFEST).write_bytes(data)
        _sync(draft)
        draft.rename(store / version)
        _sync_one(store)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Artefact(store / version, manifest, _digest(data))


def find(store: Path, version: str) -> Path:
    """The folder of `version`; raises `ArtefactRefused` for a name that is none or is not there."""
    if not _VERSION.fullmatch(version):
        raise ArtefactRefused(
            f"{version[:80]!r} is no version; {NAME}-<utc time>-<8 hex digits> is accepted"
        )
    folder = store / version
    if not folder.is_dir():
        raise ArtefactRefused(f"{version} is not in the store {store}")
    return folder


def verify(store: Path, version: str, sha256: str | None = None) -> Artefact:
    """Read a stored model after checking every byte of it.

    `sha256` is what the registry says of the manifest; None trusts the folder's own manifest.
    Raises `ArtefactRefused` naming the first thing that is not as promised.
    """
    folder = find(store, version)
    artefact = read(folder)
    if sha256 is not None and artefact.sha256 != sha256:
        raise ArtefactRefused(f"{version}: the manifest is not the one that was registered")
    promised = artefact.manifest["files"]
    there = set(_files(folder)) - {MANIFEST}
    for name in sorted(there ^ set(promised)):
        fault = "is not in the manifest" if name in there else "is missing"
        raise ArtefactRefused(f"{version}: file {name} {fault}")
    for name, digest in promised.items():
        if _sha256(folder / name) != digest:
            raise ArtefactRefused(f"{version}: file {name} was altered (its sha256 differs)")
    return artefact


def read(folder: Path) -> Artefact:
    """A stored model by its manifest alone, unverified; for lists."""
    try:
        data = (folder / MANIFEST).read_bytes()
        manifest = orjson.loads(data)
        if manifest["format"] != FORMAT or not isinstance(manifest["files"], dict):
            raise ArtefactRefused(
                f"{folder.name}: format {manifest['format']!r}; {FORMAT} is accepted"
            )
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ArtefactRefused(f"{folder.name}: no readable {MANIFEST} ({error!r:.120})") from error
    return Artefact(folder, manifest, _digest(data))


def listing(store: Path) -> list[Artefact]:
    """All stored models, oldest first; folders without a readable manifest are left out."""
    found = []
    for folder in sorted(store.glob(f"{NAME}-*")):
        try:
            found.append(read(folder))
        except ArtefactRefused:
            continue
    return found


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if not p.is_dir())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _stamp(now_ms: int) -> str:
    return datetime.fromtimestamp(now_ms / 1000, UTC).strftime("%Y%m%dT%H%M%SZ")


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        _sync_one(path)
    _sync_one(folder)


def _sync_one(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
