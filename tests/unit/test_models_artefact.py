"""Stored models prove what they are."""

from pathlib import Path

import pytest

from models import artefact
from models.errors import ArtefactRefused

NOW = 1_790_000_000_000
PLAIN = {"features": {"hash": "00"}, "horizon_s": 1, "metrics": {"summary": {}}}


def _fill(folder: Path) -> None:
    (folder / "autoencoder").mkdir()
    (folder / "autoencoder" / "saved_model.pb").write_bytes(b"weights")
    (folder / "golden.npz").write_bytes(b"vectors")


def _publish(store: Path) -> artefact.Artefact:
    return artefact.publish(store, PLAIN, _fill, now_ms=NOW)


def test_what_is_published_verifies(tmp_path: Path) -> None:
    """Name, manifest and hash of a stored model agree, and the list shows it."""
    made = _publish(tmp_path)
    assert made.version.startswith("engine-20260921T")
    assert artefact.verify(tmp_path, made.version, made.sha256) == made
    assert artefact.listing(tmp_path) == [made]


def test_an_altered_byte_is_refused(tmp_path: Path) -> None:
    """A file that is not what the manifest says is named."""
    made = _publish(tmp_path)
    (made.folder / "autoencoder" / "saved_model.pb").write_bytes(b"weightz")
    with pytest.raises(ArtefactRefused, match=r"autoencoder/saved_model.pb was altered"):
        artefact.verify(tmp_path, made.version, made.sha256)


def test_a_manifest_that_was_rewritten_is_refused(tmp_path: Path) -> None:
    """Changing file and manifest together fails against the registry's hash."""
    made = _publish(tmp_path)
    path = made.folder / artefact.MANIFEST
    path.write_bytes(path.read_bytes().replace(b'"horizon_s": 1', b'"horizon_s": 2'))
    with pytest.raises(ArtefactRefused, match="not the one that was registered"):
        artefact.verify(tmp_path, made.version, made.sha256)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    """What the manifest promises must be there."""
    made = _publish(tmp_path)
    (made.folder / "golden.npz").unlink()
    with pytest.raises(ArtefactRefused, match=r"golden.npz is missing"):
        artefact.verify(tmp_path, made.version)


def test_an_added_file_is_refused(tmp_path: Path) -> None:
    """What the manifest does not know must not be there."""
    made = _publish(tmp_path)
    (made.folder / "autoencoder" / "more.so").write_bytes(b"")
    with pytest.raises(ArtefactRefused, match=r"more.so is not in the manifest"):
        artefact.verify(tmp_path, made.version)


@pytest.mark.parametrize(
    "version", ["../elsewhere", "/etc", "engine", "", "engine-20260921T000000Z-0123456g"]
)
def test_only_versions_are_looked_up(tmp_path: Path, version: str) -> None:
    """A record of the registry cannot point outside the store."""
    with pytest.raises(ArtefactRefused, match="no version"):
        artefact.verify(tmp_path / "store", version)


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    """The version's folder appears by one rename, after everything is written."""

    def fail(folder: Path) -> None:
        _fill(folder)
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        artefact.publish(tmp_path, PLAIN, fail, now_ms=NOW)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_manifest_is_not_listed(tmp_path: Path) -> None:
    """The list shows what can be read."""
    made = _publish(tmp_path)
    (tmp_path / "engine-20260921T000000Z-00000000").mkdir()
    assert artefact.listing(tmp_path) == [made]
    with pytest.raises(ArtefactRefused, match="no readable manifest"):
        artefact.verify(tmp_path, "engine-20260921T000000Z-00000000")
