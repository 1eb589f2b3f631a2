"""Settings, logs and health of any process."""

import io
import json
import logging
import urllib.error
import urllib.request

import pytest
from prometheus_client import Counter

from twin.kit import logs
from twin.kit.health import HealthServer
from twin.kit.settings import Settings
from twin.local.ports import PortPicker


def test_a_wrong_setting_ends_the_process_with_its_name_value_and_meaning(monkeypatch, capsys):
    """The sentence names the variable, what it was and what is accepted; exit code 2."""
    monkeypatch.setenv("HEALTH_PORT", "70000")
    monkeypatch.setenv("LOG_LEVEL", "loud")
    with pytest.raises(SystemExit) as caught:
        Settings.load()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert "HEALTH_PORT='70000'" in said
    assert "65535" in said
    assert "LOG_LEVEL='loud'" in said
    assert "'debug', 'info', 'warning' or 'error'" in said


def test_a_secret_is_masked_in_the_sentence(monkeypatch, capsys):
    """A url may hold a password: its value is never printed."""

    class WithUrl(Settings):
        redis_url: int = 0

    monkeypatch.setenv("REDIS_URL", "redis://:hunter2@h")
    with pytest.raises(SystemExit):
        WithUrl.load()
    assert "hunter2" not in capsys.readouterr().err


def test_settings_are_frozen(monkeypatch):
    """Read once, then fixed."""
    monkeypatch.delenv("HEALTH_PORT", raising=False)
    settings = Settings.load()
    with pytest.raises(ValueError, match="frozen"):
        settings.health_port = 1


def test_logs_are_one_json_object_a_line_with_the_process(monkeypatch):
    """Events of ours and of the standard library take the same form."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    monkeypatch.setattr(root, "level", root.level)
    logs.configure("uplink", "info", "json")
    logs.get("ours").info("started", shard=3)
    logging.getLogger("theirs").warning("slow %s", "disk")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["shard"], first["process"]) == ("started", 3, "uplink")
    assert (second["event"], second["level"], second["process"]) == (
        "slow disk",
        "warning",
        "uplink",
    )


def test_health_says_ready_not_ready_and_metrics():
    """/livez is 200, /readyz follows the checks, /metrics shows counters."""
    faults = {"kafka": "away"}
    port = PortPicker().free()
    counter = Counter("cartwin_test_health_total", "for this test")
    counter.inc(3)
    server = HealthServer("127.0.0.1", port, lambda: faults)
    try:
        assert get(port, "/livez")[0] == 200
        status, body = get(port, "/readyz")
        assert (status, json.loads(body)["why"]) == (503, {"kafka": "away"})
        faults.clear()
        assert get(port, "/readyz")[0] == 200
        assert "cartwin_test_health_total 3.0" in get(port, "/metrics")[1]
        assert get(port, "/nothing")[0] == 404
    finally:
        server.close()


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
