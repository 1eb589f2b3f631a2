"""`cartwin rejected`: over the real API, with a topic in memory behind it."""

import json
import pty
import socket
import sys
import threading

import httpx
import pytest
import uvicorn
from typer.testing import CliRunner

from tests.api_fakes import Fakes
from twin.api.app import create_app
from twin.cli import app
from twin.wire.errors import Malformed, TooLarge

MQTT = "mqtt:vehicles/car-1/telemetry"
runner = CliRunner()


@pytest.fixture(scope="module")
def served():
    """An API over fakes on a port of its own: (fakes, url)."""
    fakes = Fakes()
    server = uvicorn.Server(uvicorn.Config(create_app(fakes.open), log_config=None))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        # Who connects before it serves waits in the listener's queue.
        assert httpx.get(f"{url}/livez", timeout=30).is_success
        yield fakes, url
        server.should_exit = True
        thread.join()


@pytest.fixture
def stack(served):
    """Its topic empty, and a way to call the command line."""
    fakes, url = served
    fakes.rejected.__init__()

    def run(*words, **how):
        return runner.invoke(app, ["rejected", *words, "--api", url], **how)

    return fakes.rejected, run


def fill(rejected, count=3):
    return [
        rejected.topic.add(
            Malformed("no JSON\x1b[31m"), MQTT, b'{"n":%d}' % n, at=n * 1000, key=b"car-1"
        )
        for n in range(1, count + 1)
    ]


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_list_prints_a_line_per_record_that_does_nothing_to_the_terminal(stack):
    """The newest first; control characters of a car's text are shown, not obeyed."""
    rejected, run = stack
    ids = fill(rejected)
    done = run("list")
    assert done.exit_code == 0, done.output
    assert [line.split()[0] for line in done.stdout.splitlines()] == ids[::-1]
    assert "1970-01-01T00:00:03.000Z  malformed_json" in done.stdout
    assert "\x1b" not in done.stdout


def test_list_has_heads_on_a_terminal_only(stack, served, monkeypatch):
    """Each head begins where its column does; a program gets records and nothing else."""
    rejected, run = stack
    (id_,) = fill(rejected, 1)
    assert run("list").stdout.split()[0] == id_
    reader, writer = pty.openpty()
    with open(reader, "rb", buffering=0) as shown, open(writer, "w") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        app(["rejected", "list", "--api", served[1]], standalone_mode=False)
        terminal.flush()
        heads, line = shown.read(10_000).decode().splitlines()
    for head, value in (("rejected at", "1970-"), ("reason", "malformed"), ("source", "mqtt:")):
        assert heads.index(head) == line.index(value)
    assert heads.index("tries") + len("tries") == line.index("  mqtt:")
    assert heads.split()[0] == "id"


def test_list_filters_and_turns_pages(stack):
    """Filters go to the API; --json gives records; the cursor is said."""
    rejected, run = stack
    ids = fill(rejected)
    rejected.topic.add(TooLarge("long"), "kafka:scores/0/1", at=9000, partition=1)
    done = run("list", "--json", "--reason", "malformed_json", "--from", "2000", "--limit", "1")
    assert [line["id"] for line in lines(done)] == [ids[2]]
    cursor = done.stderr.rpartition("--cursor ")[2].strip()
    done = run("list", "--json", "--reason", "malformed_json", "--from", "2000", "--cursor", cursor)
    assert [line["id"] for line in lines(done)] == [ids[1]]
    day = run("list", "--json", "--to", "1970-01-01T00:00:02Z", "--vehicle", "car-1")
    assert [line["id"] for line in lines(day)] == [ids[0]]
    assert len(lines(run("list", "--json", "--source", "kafka:"))) == 1
    assert "Nothing was rejected" in run("list", "--reason", "empty").output


def test_show_prints_one_record_and_its_bytes(stack):
    """For people, as JSON, or the bytes alone."""
    rejected, run = stack
    first = fill(rejected)[0]
    done = run("show", first)
    assert "malformed_json" in done.stdout
    # Nothing is known of its content type.
    assert "None" not in done.stdout
    assert '{"n":1}' in done.stdout
    assert "\x1b" not in done.stdout
    assert lines(run("show", first, "--json"))[0]["value"] == '{"n":1}'
    odd = rejected.topic.add(Malformed("odd"), MQTT, b"\x00\xff", at=1)
    assert run("show", odd, "--raw").stdout_bytes == b"\x00\xff"
    missing = run("show", "0-99")
    assert missing.exit_code == 1
    assert "404" in missing.output


def test_one_record_is_sent_again_as_it_is_mended_or_replaced(stack, tmp_path):
    """--patch and --value change it; --dry-run sends nothing."""
    rejected, run = stack
    first = fill(rejected)[0]
    assert "would be sent" in run("redrive", first, "--dry-run").output
    assert rejected.sent == []
    file = tmp_path / "mended"
    file.write_bytes(b"\x00\x01")
    for change in ([], ["--patch", '{"n":null,"m":2}'], ["--value", str(file)]):
        done = run("redrive", first, "--json", *change)
        assert done.exit_code == 0, done.output
        assert lines(done)[0]["topic"] == "redrive"
    assert [sent.value for sent in rejected.sent] == [b'{"n":1}', b'{"m":2}', b"\x00\x01"]


@pytest.mark.parametrize("answer", ["y\n", "n\n"])
def test_many_are_sent_only_when_agreed(stack, answer):
    """It asks with the count; what was rejected after the count is not sent."""
    rejected, run = stack
    fill(rejected)
    done = run("redrive", "--reason", "malformed_json", input=answer)
    assert "Send 3 rejected records again?" in done.output
    assert done.exit_code == (0 if answer == "y\n" else 1)
    assert len(rejected.sent) == (3 if answer == "y\n" else 0)


def test_many_are_sent_in_calls_and_counted(stack):
    """More than one call takes; --limit bounds all; --yes asks nothing."""
    rejected, run = stack
    fill(rejected, 620)
    done = run("redrive", "--all", "--yes", "--limit", "610")
    assert done.exit_code == 0, done.output
    assert len({sent.value for sent in rejected.sent}) == len(rejected.sent) == 610
    assert "610 records were sent again, 0 could not be" in done.output


def test_a_dry_run_of_many_lists_their_ids(stack):
    """One a line, nothing is sent."""
    rejected, run = stack
    ids = fill(rejected)
    done = run("redrive", "--vehicle", "car-1", "--dry-run")
    assert done.stdout.split() == ids[::-1]
    assert rejected.sent == []


def test_those_that_could_not_be_sent_are_named_and_cost_the_exit_code(stack):
    """One whose original was cut, beside others."""
    rejected, run = stack
    fill(rejected)
    cut = rejected.topic.add(TooLarge("long"), MQTT, b"{", at=1, whole_bytes=9)
    done = run("redrive", "--all", "--yes")
    assert done.exit_code == 1
    assert f"{cut}: " in done.output
    assert "3 records were sent again, 1 could not be" in done.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["redrive"], "give an id, a filter, or --all"),
        (["redrive", "0-1", "--reason", "empty"], "one of both"),
        (["redrive", "--all", "--patch", "{}"], "give its id"),
        (["redrive", "0-1", "--patch", "{"], "--patch '{' is not JSON"),
        (["redrive", "0-1", "--patch", "[]"], "no JSON object"),
        (["redrive", "0-1", "--value", "nowhere"], "--value nowhere"),
        (["redrive", "0-1", "--value", "x", "--patch", "{}"], "one of both"),
        (["list", "--from", "soon"], "--from 'soon' is no time"),
    ],
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(stack, words, said):
    """Nothing is asked of the API."""
    rejected, run = stack
    done = run(*words)
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert rejected.sent == []
