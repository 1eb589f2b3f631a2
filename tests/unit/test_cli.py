"""The command line: help that teaches, sentences instead of stack traces, exit codes."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from typer.testing import CliRunner

from twin.cli import app
from twin.cli.loop import percentiles

runner = CliRunner()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """No running stack of the developer's is found."""
    monkeypatch.chdir(tmp_path)
    for name in ("KAFKA_BOOTSTRAP", "REDIS_URL", "MQTT_URLS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "command",
    [
        ["up"],
        ["demo"],
        ["replay"],
        ["twin", "get"],
        ["twin", "command"],
        ["bench", "loop"],
        ["broker", "config"],
        ["broker", "refused"],
        ["broker", "ca", "issue"],
        ["rejected", "list"],
        ["rejected", "show"],
        ["rejected", "redrive"],
    ],
)
def test_every_command_explains_itself(command):
    """--help says what it does and lists its options."""
    done = runner.invoke(app, [*command, "--help"])
    assert done.exit_code == 0
    assert "--help" in done.output


def test_all_commands_are_listed():
    """The help of `cartwin` names every command."""
    done = runner.invoke(app, ["--help"])
    for name in (
        "up",
        "demo",
        "replay",
        "rebuild-view",
        "simulate",
        "train",
        "evaluate",
        "models",
        "twin",
        "rejected",
        "bench",
    ):
        assert name in done.output


def test_a_command_without_a_stack_says_how_to_start_one():
    """Exit code 2 and a sentence."""
    done = runner.invoke(app, ["twin", "get", "car-1"])
    assert done.exit_code == 2
    assert "cartwin up" in done.output


def test_an_api_that_does_not_answer_is_named():
    """Exit code 1 and the address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        done = runner.invoke(app, ["twin", "list", "--api", url])
    assert done.exit_code == 1
    assert url in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    "url",
    ["http://[::", "localhost:8080", "ftp://x", "http://", "http://ä..b", f"http://{'a' * 70}"],
)
def test_an_api_address_that_is_none_is_refused(url):
    """Exit code 2, naming option, value and what is accepted."""
    done = runner.invoke(app, ["twin", "list", "--api", url])
    assert done.exit_code == 2
    assert f"--api {url.rstrip('/')!r} is not accepted: http://host:port" in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.fixture
def answering():
    """A web server that gives the answer it is told to every request: status, body."""
    answer = [200, b""]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answer[0])
            self.send_header("Content-Length", str(len(answer[1])))
            self.end_headers()
            self.wfile.write(answer[1])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()

        def gives(status, body):
            answer[:] = status, body
            return f"http://127.0.0.1:{server.server_port}"

        yield gives
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"<html>hello", "is no cartwin API: 200 '<html>hello'"),
        (200, b"\xff\xfe", "is no cartwin API: 200"),
        (200, b"", "is no cartwin API: 200"),
        (200, b"[]", "is no cartwin API: 200 '[]'"),
        (302, b"", "is no cartwin API: 302"),
        (502, b"bad gateway", "is no cartwin API: 502 'bad gateway'"),
        (404, b'["no"]', "is no cartwin API: 404"),
        (200, b'{"items": 1}', "no page of twins was answered: {'items': 1}"),
        (200, b'{"items": [{"vehicle_id": "x"}]}', "no page of twins was answered"),
        (400, b'{"detail": "no such field"}', "GET /v1/twins: 400 no such field"),
    ],
)
def test_an_answer_that_is_not_the_apis_is_a_sentence(answering, status, body, said):
    """Another service at the address, or a refusal: exit code 1 and what was answered."""
    done = runner.invoke(app, ["twin", "list", "--api", answering(status, body)])
    assert done.exit_code == 1
    assert said in done.output
    assert isinstance(done.exception, SystemExit)


def test_arguments_that_are_no_json_are_refused():
    """Exit code 2, naming the input."""
    done = runner.invoke(
        app, ["twin", "command", "car-1", "ping", "--args", "{x", "--api", "http://x"]
    )
    assert done.exit_code == 2
    assert "{x" in done.output


def test_a_taken_port_is_named_with_what_to_do(tmp_path):
    """`cartwin up` says which port, and which option or variable helps."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        done = runner.invoke(
            app, ["up", "--data-dir", str(tmp_path / "d"), "--kafka-port", str(port), "--json"]
        )
    assert done.exit_code == 1
    assert str(port) in done.output
    assert "--kafka-port" in done.output
    assert "KAFKA_BOOTSTRAP" in done.output


def test_more_degraded_cars_than_cars_are_refused():
    """Exit code 2."""
    done = runner.invoke(app, ["demo", "--cars", "10", "--degraded", "11"])
    assert done.exit_code == 2


@pytest.mark.parametrize(
    ("words", "usage"),
    [
        (("simulate", "--help"), "usage: cartwin simulate "),
        (("models", "promote", "-h"), "usage: cartwin models promote "),
        (("evaluate", "--help"), "usage: cartwin evaluate [-h] [--data DATA]"),
        (("evaluate", "--topic", "history", "--help"), "usage: cartwin evaluate [-h] [--version"),
        (("evaluate", "fleet", "-h"), "usage: cartwin evaluate fleet "),
        (("rebuild-view", "--help"), "usage: cartwin rebuild-view "),
    ],
)
def test_help_of_a_process_is_about_the_command_that_was_typed(words, usage, capfd):
    """Its usage and its examples; `python -m models` is nowhere in it."""
    done = runner.invoke(app, words)
    assert done.exit_code == 0
    assert done.output.startswith(usage)
    assert "python -m" not in done.output
    assert capfd.readouterr().out == ""


def test_wrong_usage_of_a_process_is_its_own(capfd):
    """What is no help is not held back, and the exit code comes through."""
    assert runner.invoke(app, ["simulate"]).exit_code == 2
    assert "--vehicles" in capfd.readouterr().err


def test_percentiles_are_nearest_rank():
    """p50 and p99 of 0..100 are 50 and 99; no samples say so."""
    assert percentiles(range(101)) == {"n": 101, "p50": 50, "p99": 99}
    assert json.dumps(percentiles([])) == '{"n": 0}'
