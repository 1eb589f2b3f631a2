"""FILE, FOLDER or ARCHIVE -> recordings."""

import io
import tarfile
from pathlib import Path

import pytest

from twin.client import replay_source
from twin.client.replay_source import BadRecording, sources


def tar(path: Path, members: list[tuple[str, bytes | None, bytes]], mode: str = "w:xz") -> Path:
    """An archive of (name, content or None, type)."""
    with tarfile.open(path, mode) as archive:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content or b"")
            if kind == tarfile.SYMTYPE:
                info.linkname = "/etc/passwd"
            archive.addfile(info, io.BytesIO(content or b""))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadRecording) as caught, sources(path):
        pass
    return str(caught.value)


def test_a_csv_file_is_one_recording(tmp_path):
    """A file is named for itself and its stem is its name without .csv."""
    path = tmp_path / "drive1.CSV"
    path.write_text("a\n")
    with sources(path) as found:
        assert [(one.name, one.stem, one.path) for one in found] == [(str(path), "drive1", path)]


def test_a_folder_gives_its_csv_files_by_name(tmp_path):
    """Files of other kinds are left out, folders inside are searched, the order is by name."""
    (tmp_path / "in").mkdir()
    for name in ("b.csv", "a.csv", "in/c.csv", "notes.txt"):
        (tmp_path / name).write_text("x\n")
    with sources(tmp_path) as found:
        assert [one.stem for one in found] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "mode"), [("x.tar.xz", "w:xz"), ("x.tgz", "w:gz"), ("x.tar", "w")]
)
def test_an_archive_is_unpacked_for_as_long_as_it_is_read(tmp_path, name, mode):
    """Recordings of an archive are files named archive:member, gone at the end."""
    members = [
        ("trips", None, tarfile.DIRTYPE),
        ("trips/live2.csv", b"two", tarfile.REGTYPE),
        ("trips/live1.csv", b"one", tarfile.REGTYPE),
        ("README", b"about", tarfile.REGTYPE),
    ]
    path = tar(tmp_path / name, members, mode)
    with sources(path) as found:
        assert [one.name for one in found] == [f"{path}:trips/live1.csv", f"{path}:trips/live2.csv"]
        assert [one.stem for one in found] == ["live1", "live2"]
        assert [one.path.read_bytes() for one in found] == [b"one", b"two"]
    assert not any(one.path.exists() for one in found)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../out.csv", tarfile.REGTYPE),
        ("/tmp/out.csv", tarfile.REGTYPE),
        ("link.csv", tarfile.SYMTYPE),
        ("hard.csv", tarfile.LNKTYPE),
        ("device.csv", tarfile.CHRTYPE),
    ],
)
def test_an_archive_with_paths_or_links_that_lead_out_is_refused(tmp_path, name, kind):
    """Only plain files below the archive's root are unpacked, and the member is named."""
    said = refusal(tar(tmp_path / "x.tar", [(name, b"", kind)], "w"))
    assert f"x.tar:{name}" in said
    assert "plain file" in said


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, monkeypatch):
    """The bound counts what members claim, also of members that would be skipped."""
    monkeypatch.setattr(replay_source, "MAX_ARCHIVE_BYTES", 1000)
    said = refusal(tar(tmp_path / "x.tar.xz", [("zeros.bin", b"0" * 1001, tarfile.REGTYPE)]))
    assert "unpacks to more than" in said


@pytest.mark.parametrize("archived", [False, True])
def test_more_recordings_than_can_be_open_are_refused(tmp_path, monkeypatch, archived):
    """The number of files is bounded, in a folder and in an archive."""
    monkeypatch.setattr(replay_source, "MAX_FILES", 2)
    folder = tmp_path / "trips"
    folder.mkdir()
    for number in range(3):
        (folder / f"{number}.csv").write_text("x\n")
    members = [(f"{number}.csv", b"x", tarfile.REGTYPE) for number in range(3)]
    given = tar(tmp_path / "x.tar.xz", members) if archived else folder
    assert "more than 2 .csv files" in refusal(given)


@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_truncated_archive_is_refused_as_damaged(tmp_path, kept):
    """Half an archive gives one sentence, whichever layer notices."""
    content = bytes(range(256)) * 400
    path = tar(tmp_path / "x.tar.xz", [("a.csv", content, tarfile.REGTYPE)])
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)])
    assert "damaged" in refusal(path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("missing.csv", None),
        ("notes.txt", b"hello"),
        ("x.tar.xz", b"no archive"),
        ("empty.tar", b""),
    ],
)
def test_anything_else_is_refused_with_what_is_accepted(tmp_path, name, content):
    """The sentence names the path and the accepted kinds."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    said = refusal(path)
    assert name in said
    assert replay_source.ACCEPTED in said


def test_a_folder_without_csv_is_refused(tmp_path):
    """An empty folder is no recording."""
    assert "holds no .csv file" in refusal(tmp_path)
