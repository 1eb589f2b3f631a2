"""What the checker reads and what it may import."""

import ast
import sys
from pathlib import Path

import pytest

import verdict
from verdict_read import Unreadable, avro_schema, car_logs

LOAD_TEST = Path(verdict.__file__).parent
ALLOWED = {"orjson", "fastavro", "confluent_kafka"}


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0
            yield node.module.partition(".")[0]


def test_the_checker_imports_nothing_of_the_services():
    """Only the standard library, three codecs and clients, and its own modules."""
    own = {path.stem for path in LOAD_TEST.glob("verdict*.py")}
    assert len(own) == 4
    for path in LOAD_TEST.glob("verdict*.py"):
        foreign = set(imported(path)) - set(sys.stdlib_module_names) - own - ALLOWED
        assert not foreign, f"{path.name} imports {foreign}"


def test_all_logs_of_a_folder_are_one_side(tmp_path):
    """Logs of several processes are read together; a line cut off by a kill is left out."""
    (tmp_path / "cars-0-1.jsonl").write_text(
        '{"e":"connect","v":"a","session":5,"t":5}\n'
        '{"e":"sent","v":"a","session":5,"sequence":1,"t":6}\n'
    )
    (tmp_path / "cars-1-1.jsonl").write_text(
        '{"e":"connect","v":"b","session":4,"t":4}\n{"e":"acked","v":"b","ses'
    )
    cars = car_logs(tmp_path)
    assert cars.vehicles == {"a", "b"}
    assert cars.sent == {("a", 5, 1)}
    assert (cars.start, cars.end, cars.acknowledged) == (4, 6, set())


@pytest.mark.parametrize("line", ["[]", "nonsense", '{"e":"sent","v":"a"}', '{"v":"a"}'])
def test_a_line_that_is_none_of_a_car_log_is_named(tmp_path, line):
    """The error says which file and line."""
    (tmp_path / "cars.jsonl").write_text(f'{{"e":"connect","v":"a","session":5,"t":5}}\n{line}\n')
    with pytest.raises(Unreadable, match=r"cars\.jsonl:2"):
        car_logs(tmp_path)


def test_a_folder_without_logs_is_named(tmp_path):
    """The checker does not call nothing a success."""
    with pytest.raises(Unreadable, match="no car-side log"):
        car_logs(tmp_path)


@pytest.mark.parametrize("text", [None, "{", '{"type":"record"}', '"nonsense"'])
def test_a_file_that_is_no_schema_is_named(tmp_path, text):
    """A missing or wrong schema file is one sentence."""
    path = tmp_path / "telemetry.avsc"
    if text is not None:
        path.write_text(text)
    with pytest.raises(Unreadable, match="is no Avro schema"):
        avro_schema(path)


def test_the_packaged_schema_is_the_default():
    """Without --schema the checker reads the one beside the repository."""
    assert avro_schema(verdict.SCHEMA)["name"] == "cartwin.Telemetry"


def test_an_unreadable_input_is_one_sentence_and_exit_code_2(tmp_path, capsys):
    """The command line says what is wrong, without a stack trace, and prints no JSON."""
    code = verdict.main(["--cars-log", str(tmp_path), "--kafka", "127.0.0.1:1", "--json"])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("verdict: ")
    assert err.count("\n") == 1


def test_the_table_shows_every_figure_and_problem():
    """People read the same figures as machines."""
    line = {"ok": False, "lost": 1, "commands": {"sent": 2}, "problems": ["one is lost"]}
    text = verdict.table(line)
    for part in ("ok  no", "lost  1", "sent 2", "problem: one is lost"):
        assert part in text
