"""The data directory is ours or it is left alone; one stack uses it at a time."""

import json
import os
from dataclasses import replace

import pytest

from twin.local import data, jars
from twin.local.data import Endpoints, hold, running
from twin.local.errors import AlreadyRunning, ForeignDirectory, LocalError
from twin.local.process import tail

ENDPOINTS = Endpoints(
    api="http://127.0.0.1:8080",
    mqtt=("mqtt://127.0.0.1:1883",),
    kafka="127.0.0.1:9092",
    redis="redis://127.0.0.1:6379/0",
    pid=4711,
    health={"uplink": "http://127.0.0.1:20001"},
)


def test_a_new_directory_is_made_and_marked(tmp_path):
    """Parents are made, too; the marker makes a later --fresh possible."""
    with hold(tmp_path / "a" / "b", fresh=False):
        assert (tmp_path / "a" / "b" / data.MARKER).is_file()


def test_fresh_empties_a_marked_directory(tmp_path):
    """Files, folders and links go, marker and lock stay, what a link points to is untouched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "keep").write_text("x")
    home = tmp_path / "data"
    with hold(home, fresh=False):
        (home / "kafka" / "deep").mkdir(parents=True)
        (home / "file").write_text("x")
        (home / "link").symlink_to(outside)
    with hold(home, fresh=True):
        assert {entry.name for entry in home.iterdir()} == {data.MARKER, "lock"}
    assert (outside / "keep").exists()


def test_data_stay_without_fresh(tmp_path):
    """A second run finds what the first one left."""
    with hold(tmp_path / "d", fresh=False):
        (tmp_path / "d" / "file").write_text("x")
    with hold(tmp_path / "d", fresh=False):
        assert (tmp_path / "d" / "file").read_text() == "x"


@pytest.mark.parametrize("fresh", [False, True])
def test_a_foreign_directory_is_left_alone(tmp_path, fresh):
    """The error names what was found; nothing is written and nothing removed."""
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(ForeignDirectory, match=r"thesis\.txt"), hold(tmp_path, fresh=fresh):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_directory_with_models_only_is_ours(tmp_path):
    """Training before the first `up` makes `models`, which is no obstacle."""
    (tmp_path / "models").mkdir()
    with hold(tmp_path, fresh=False):
        assert (tmp_path / data.MARKER).is_file()


def test_a_file_is_no_data_directory(tmp_path):
    """A sentence instead of a stack trace."""
    (tmp_path / "f").write_text("x")
    for path in (tmp_path / "f", tmp_path / "f" / "below"):
        with pytest.raises(LocalError, match="is a file"), hold(path, fresh=False):
            pass


def test_two_cannot_hold_one_directory(tmp_path):
    """The second one learns the pid and the endpoints of the first, or that it still starts."""
    with hold(tmp_path, fresh=False):
        assert running(tmp_path) is None
        with (
            pytest.raises(AlreadyRunning, match=rf"pid {os.getpid()}; it is still starting"),
            hold(tmp_path, fresh=True),
        ):
            pass
        data.write_endpoints(tmp_path, ENDPOINTS)
        with (
            pytest.raises(AlreadyRunning, match=r"kafka 127\.0\.0\.1:9092, redis redis://"),
            hold(tmp_path, fresh=True),
        ):
            pass
        assert running(tmp_path) == ENDPOINTS
    assert running(tmp_path) is None


def test_endpoints_of_a_dead_stack_do_not_count(tmp_path):
    """A file that a killed supervisor left is not believed, and the next start removes it."""
    with hold(tmp_path, fresh=False):
        data.write_endpoints(tmp_path, ENDPOINTS)
        left = (tmp_path / "endpoints.json").read_text()
    (tmp_path / "endpoints.json").write_text(left)
    assert running(tmp_path) is None
    with hold(tmp_path, fresh=False):
        assert running(tmp_path) is None


def test_nobody_runs_where_nothing_is(tmp_path):
    """A directory that does not exist is no error."""
    assert running(tmp_path / "nowhere") is None


def test_endpoints_file_says_more_than_the_printed_line(tmp_path):
    """endpoints.json adds pid, health and validation mode to the four public keys."""
    with hold(tmp_path, fresh=False):
        data.write_endpoints(tmp_path, ENDPOINTS)
        document = json.loads((tmp_path / "endpoints.json").read_text())
    more = {"pid": 4711, "health": dict(ENDPOINTS.health), "validation": None}
    assert document == {**ENDPOINTS.public(), **more}
    assert list(ENDPOINTS.public()) == ["api", "mqtt", "kafka", "redis"]


def test_class_path_is_used_only_while_its_jars_exist(tmp_path):
    """A cleaned-up cache leads to a new download and not to a broken start."""
    jar = tmp_path / "kafka.jar"
    jar.write_bytes(b"")
    file = tmp_path / "classpath.json"
    assert jars.read_class_path(file) is None
    file.write_text(json.dumps([str(jar)]))
    assert jars.read_class_path(file) == [str(jar)]
    file.write_text(json.dumps([str(jar), str(tmp_path / "gone.jar")]))
    assert jars.read_class_path(file) is None


@pytest.mark.parametrize("text", ["", "{}", "[]", "[1]", "no json"])
def test_a_damaged_class_path_is_ignored(tmp_path, text):
    """What cannot be used counts as not there."""
    (tmp_path / "f").write_text(text)
    assert jars.read_class_path(tmp_path / "f") is None


def test_class_path_lies_in_the_cache_of_the_user(tmp_path):
    """XDG_CACHE_HOME is respected."""
    file = jars.class_path_file({"XDG_CACHE_HOME": str(tmp_path)})
    assert file == tmp_path / "cartwin" / "kafka-4.3.1.classpath.json"


def test_tail_shows_the_end_of_a_log(tmp_path):
    """The last lines, indented and cut; empty and missing logs say so."""
    log = tmp_path / "log"
    assert "cannot be read" in tail(log)
    log.write_text("")
    assert tail(log).strip() == "(empty)"
    log.write_text("".join(f"line {n}\n" for n in range(100_000)) + "x" * 999 + "\n")
    assert tail(log, lines=3, line_chars=10).splitlines() == [
        "    line 99998",
        "    line 99999",
        "    " + "x" * 10,
    ]


def test_the_folder_of_certificates_is_told_where_there_is_one(tmp_path):
    """To who reads the file, and to who sees the addresses."""
    secured = replace(ENDPOINTS, mqtt=("mqtts://127.0.0.1:8883",), ca="/data/ca")
    with hold(tmp_path, fresh=False):
        data.write_endpoints(tmp_path, secured)
        assert running(tmp_path) == secured
    assert secured.public()["ca"] == "/data/ca"
