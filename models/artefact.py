"""A trained model as one folder that proves what it is: published atomically, verified before use.

`<store>/<version>/` holds two SavedModels, the golden vectors and `manifest.json`: thresholds,
debounce, scaler, features, training offsets, seeds, metrics, versions and the sha256 of every file.
The registry carries the manifest's own sha256, so a record on topic `models` pins every byte. The
trainer writes, the scorer only reads; a folder that lacks a file, has one more or has another byte
is refused. The store may be an object store (`store`). No TensorFlow here: hashes and JSON.
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
from models.store import Location, Remote

FORMAT: Final = 1
NAME: Final = "engine"
MANIFEST: Final = "manifest.json"
GOLDEN: Final = "golden.npz"
CARS: Final = "cars.json"
"""Lives that the model learnt from, scales and thresholds included."""
AUTOENCODER: Final = "autoencoder"
LSTM: Final = "lstm"

_VERSION = re.compile(rf"{NAME}-\d{{8}}T\d{{6}}Z-[0-9a-f]{{8}}")


_GENERATED: Final = ("format", "name", "version", "created_at", "files")
"""Keys of a manifest that `publish` adds."""


@dataclass(frozen=True, slots=True)
class Artefact:
    """A stored model: its folder, its manifest, and the sha256 of the manifest's bytes."""

    folder: Path
    manifest: dict[str, Any]
    sha256: str

    @property
    def version(self) -> str:
        """`engine-<utc time>-<hash8>`; of a model that is not published yet the folder's name."""
        version: str = self.manifest.get("version", self.folder.name)
        return version


def publish(
    store: Location, manifest: dict[str, Any], fill: Callable[[Path], None], *, now_ms: int
) -> Artefact:
    """Store a model: `fill` writes its files into a hidden folder; then it appears as a whole.

    In a folder one rename does that, in an object store the manifest, which is written last: a crash
    leaves no half artefact under a version's name. `manifest` gains format, name, version, created_at
    and files. Raises `StoreUnusable`.
    """
    home = store.cache if isinstance(store, Remote) else store
    home.mkdir(parents=True, exist_ok=True)
    draft = home / f".draft-{secrets.token_hex(8)}"
    draft.mkdir()
    try:
        fill(draft)
        files = {name: _sha256(draft / name) for name in _files(draft)}
        version = f"{NAME}-{_stamp(now_ms)}-{_hash8(manifest, files)}"
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
        folder = home / version
        if isinstance(store, Remote):
            store.write(draft, version, [*files, MANIFEST])
            folder = home / _digest(data)
        _sync(draft)
        draft.rename(folder)
        _sync_one(home)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return Artefact(folder, manifest, _digest(data))


def _hash8(manifest: dict[str, Any], files: dict[str, str]) -> str:
    """What a version ends with: of all that was given, so that thresholds cannot be altered either."""
    return _digest(orjson.dumps([manifest, files]))[:8]


def verify(store: Location, version: str, sha256: str | None = None) -> Artefact:
    """Read a stored model after checking every byte of it; a remote one from the local cache.

    `sha256` is what the registry says of the manifest; None trusts the store's own manifest.
    Raises `ArtefactRefused` naming the first thing that is not as promised, `StoreUnusable`.
    """
    if not _VERSION.fullmatch(version):
        raise ArtefactRefused(
            f"{version[:80]!r} is no version; {NAME}-<utc time>-<8 hex digits> is accepted"
        )
    if isinstance(store, Remote):
        artefact = _fetched(store, version, sha256)
        try:
            return _checked(artefact, version, sha256)
        except ArtefactRefused:
            # The copy may have been hurt, not the original: once more, from there.
            shutil.rmtree(artefact.folder, ignore_errors=True)
            return _checked(_fetched(store, version, sha256), version, sha256)
    if not (store / version).is_dir():
        raise ArtefactRefused(f"{version} is not in the store {store}")
    return _checked(read(store / version), version, sha256)


def _fetched(store: Remote, version: str, sha256: str | None) -> Artefact:
    """A copy in the cache, unchecked but for the manifest's own hash."""
    try:
        data = store.read(version, MANIFEST)
    except FileNotFoundError as error:
        raise ArtefactRefused(f"{version} is not in the store {store}") from error
    artefact = _parsed(store.cache / _digest(data), version, data)
    if sha256 not in (None, artefact.sha256):
        raise ArtefactRefused(f"{version}: the manifest is not the one that was registered")
    store.copy(version, list(artefact.manifest["files"]), artefact.sha256, {MANIFEST: data})
    return artefact


def _checked(artefact: Artefact, version: str, sha256: str | None) -> Artefact:
    folder = artefact.folder
    if sha256 is not None and artefact.sha256 != sha256:
        raise ArtefactRefused(f"{version}: the manifest is not the one that was registered")
    if artefact.version != version:
        raise ArtefactRefused(f"{version}: the manifest is that of {artefact.version[:80]}")
    promised = artefact.manifest["files"]
    said = {name: part for name, part in artefact.manifest.items() if name not in _GENERATED}
    if not version.endswith(_hash8(said, promised)):
        raise ArtefactRefused(f"{version}: the manifest was altered (its version names another)")
    there = set(_files(folder)) - {MANIFEST}
    for name in sorted(there ^ set(promised)):
        fault = "is not in the manifest" if name in there else "is missing"
        raise ArtefactRefused(f"{version}: file {name} {fault}")
    for name, digest in promised.items():
        if _sha256(folder / name) != digest:
            raise ArtefactRefused(f"{version}: file {name} was altered (its sha256 differs)")
    return artefact


def learnt(artefact: Artefact) -> frozenset[str]:
    """Lives that a verified model learnt from: on them it must not be judged."""
    try:
        return frozenset(orjson.loads((artefact.folder / CARS).read_bytes())["learnt"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactRefused(
            f"{artefact.version} does not tell which cars it learnt from, so nobody can tell which it"
            " did not see; train it again"
        ) from error


def read(folder: Path) -> Artefact:
    """A stored model by its manifest alone, unverified; for lists."""
    try:
        data = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise ArtefactRefused(f"{folder.name}: no readable {MANIFEST} ({error!r:.120})") from error
    return _parsed(folder, folder.name, data)


def listing(store: Location) -> list[Artefact]:
    """All stored models, oldest first; folders without a readable manifest are left out."""
    if isinstance(store, Remote):
        names = [name for name in store.versions() if _VERSION.fullmatch(name)]
    else:
        names = sorted(folder.name for folder in store.glob(f"{NAME}-*"))
    found = []
    for name in names:
        try:
            if isinstance(store, Remote):
                data = store.read(name, MANIFEST)
                found.append(_parsed(store.cache / _digest(data), name, data))
            else:
                found.append(read(store / name))
        except (ArtefactRefused, FileNotFoundError):
            continue
    return found


def _parsed(folder: Path, version: str, data: bytes) -> Artefact:
    try:
        manifest = orjson.loads(data)
        if manifest["format"] != FORMAT or not isinstance(manifest["files"], dict):
            raise ArtefactRefused(f"{version}: format {manifest['format']!r}; {FORMAT} is accepted")
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise ArtefactRefused(f"{version}: no readable {MANIFEST} ({error!r:.120})") from error
    return Artefact(folder, manifest, _digest(data))


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
