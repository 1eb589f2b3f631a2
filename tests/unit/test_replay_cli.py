"""`cartwin replay` as a user meets it: options, refusals, what it says."""

from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from twin.cli import endpoints
from twin.cli import replay as command
from twin.client import replay_plan
from twin.client.replay import Result
from twin.client.replay_source import Source
from twin.client.replay_tally import Mismatch, Tally
from twin.local import Endpoints

SEED = "time,car,coolant_temp,speed,failure\n10,car1,1000,1,no\n20,car1,90,-1,no\n30,car2,80,2,no\n"


@pytest.fixture
def seed(tmp_path: Path) -> Path:
    path = tmp_path / "seed.csv"
    path.write_text(SEED)
    return path


@pytest.fixture(autouse=True)
def no_stack(monkeypatch):
    """No test of this file may start or find a stack."""
    monkeypatch.delenv("MQTT_URLS", raising=False)
    monkeypatch.delenv("KAFKA_BOOTSTRAP", raising=False)
    monkeypatch.setattr(endpoints, "find", lambda: None)

    def refuse(*_: object) -> None:
        raise AssertionError("a stack was started")

    monkeypatch.setattr(command, "Stack", refuse)


def invoke(*arguments: object) -> tuple[int, str]:
    app = typer.Typer()
    app.command()(command.replay)
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.stdout == ""
    return done.exit_code, " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--speed", "fast"], "--speed 'fast' is not accepted: a number above 0, or max"),
        (["--speed", "0"], "--speed '0' is not accepted"),
        (["--speed", "nan"], "--speed 'nan' is not accepted"),
        (["--speed", "inf"], "--speed 'inf' is not accepted"),
        (["--start", "noon"], "--start 'noon' is not accepted: a time since 1970"),
        (["--start", "1960-01-01"], "--start '1960-01-01' is not accepted"),
        (["--start", "2020-01-01"], "--start is for recordings without a clock"),
        (["--mqtt", "mqtt://a:1"], "--mqtt and --kafka"),
        (["--kafka", "a:1"], "--mqtt and --kafka"),
    ],
)
def test_a_wrong_option_is_refused_in_one_sentence(seed, options, said):
    """Exit code 2, the option and what is accepted."""
    code, text = invoke(seed, *options)
    assert code == 2
    assert said in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("gone.csv", None, "does not exist"),
        ("x.csv", b"", "x.csv is empty"),
        ("x.csv", b"a,b\n1,2\n", "x.csv:1: header 'a, b' is of no known format"),
        ("x.csv", b"time,car,speed\n1,car1,fast\n", "x.csv:2: speed is 'fast'"),
        ("x.csv", b"\x00\xff\x00", "x.csv:1: not text"),
        ("x.tar.xz", b"\xfd7zXZ\x00 damaged", "x.tar.xz"),
        ("x.json", b"{}", "neither a .csv file nor a tar archive"),
        ("x.csv", b"time,car,speed\n99999999999,car1,1\n", "choose an earlier --start"),
    ],
)
def test_a_file_that_cannot_be_replayed_is_refused(tmp_path, name, content, said):
    """Exit code 2 and one sentence, before anything is started or sent."""
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    code, text = invoke(path)
    assert code == 2
    assert said.replace(" ", "") in text.replace(" ", "")


@pytest.mark.parametrize(
    ("mode", "options", "hint"),
    [
        ("enforce", [], "or replay with --enforce"),
        ("warn", ["--enforce"], "or replay without --enforce"),
        ("off", [], "start it with `cartwin up --validation warn`, use --standalone"),
    ],
)
def test_a_running_stack_of_another_mode_is_refused(seed, monkeypatch, mode, options, hint):
    """The mode is the uplink's; the sentence names both and the ways out."""
    running = Endpoints(None, ("mqtt://a:1",), "a:1", "redis://a", 1, {}, mode)
    monkeypatch.setattr(endpoints, "find", lambda: running)
    code, text = invoke(seed, *options)
    assert code == 2
    assert f"the running stack validates with {mode!r}" in text
    assert hint in text
    assert ("or replay" in hint) == ("or replay" in text)


def test_a_running_stack_under_tls_is_refused(seed, monkeypatch):
    """There a connection is one car; the sentence names the way out."""
    running = Endpoints(None, ("mqtts://a:1",), "a:1", "redis://a", 1, {}, "warn", "/ca")
    monkeypatch.setattr(endpoints, "find", lambda: running)
    code, text = invoke(seed)
    assert code == 2
    assert "speaks TLS" in text
    assert "use --standalone" in text


def test_addresses_that_do_not_answer_end_with_one(seed, monkeypatch):
    """Not the user's usage is wrong, a service is missing: exit code 1 and its sentence."""
    monkeypatch.setattr("twin.client.replay_check._TIMEOUT_S", 0.1)
    code, text = invoke(seed, "--mqtt", "mqtt://127.0.0.1:1", "--kafka", "127.0.0.1:1")
    assert code == 1
    assert "Kafka is not usable" in text


def result(seed: Path, problems: list[str]) -> Result:
    plan = replay_plan.make([Source("seed.csv", "seed", seed)], 0, "warn")
    tally = Tally(plan)
    tally.accepted, tally.duplicates = 3, 2
    return Result(plan, 3, tally, 2, [Mismatch("car1", "speed", 1.0, 2.0)], 1.25, problems)


def test_it_says_what_is_suspect_and_what_is_not_sent(seed):
    """By signal: how many rows, the worst value, the possible range."""
    plan = replay_plan.make([Source("seed.csv", "seed", seed)], 0, "warn")
    assert list(command.about(plan)) == [
        "3 rows of 2 cars, 1 file(s)",
        "not sent, no signal for them: failure",
        "2 rows are suspect:",
        "  coolant_temp: 1 rows, worst 1000 degC; -50 to 215 degC is possible",
        "  speed: 1 rows, worst -1 m/s; 0 to 120 m/s is possible",
    ]


def test_it_says_what_was_missed(seed):
    """Accounts first, then one line for each missed check, and no praise."""
    assert list(command.verdict(result(seed, ["1 of 2 cars have a twin"]))) == [
        "3 rows = 3 accepted + 0 rejected, 1.2 s",
        "2 records came twice (at least once is promised)",
        "missed: 1 of 2 cars have a twin",
    ]


def test_the_json_line_has_the_promised_keys(seed):
    """Other programs read ok, rows, kafka, rejected, twins, equal."""
    document = result(seed, ["x"]).document()
    promised = {key: document[key] for key in ("ok", "rows", "kafka", "rejected", "twins", "equal")}
    assert promised == {
        "ok": False, "rows": 3, "kafka": 3, "rejected": 0, "twins": 2, "equal": False,
    }  # fmt: skip
