"""Settings, logs and health of any process."""

import io
import json
import logging
import urllib.error
import urllib.request

import pytest
import redis
from prometheus_client import Counter
from pydantic import Field

from ingest.settings import IngestSettings
from twin.kit import logs
from twin.kit.health import HealthAddressUnusable, HealthServer
from twin.kit.settings import RedisUrl, Settings, masked
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


class WithRedis(Settings):
    """A process with a view."""

    redis_url: RedisUrl = Field(default="redis://h:1/0", description="Redis of the view")


def said_about(monkeypatch, capsys, url):
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(SystemExit) as caught:
        WithRedis.load()
    assert caught.value.code == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    "url",
    [
        "localhost",
        "localhost:6379",
        "http://h:6379/0",
        "unix:///tmp/redis",
        "redis://",
        "redis://h:port/0",
        "redis://h:70000/0",
        "redis://h:0/0",
        "redis://[::",
        "redis://h:6379/first",
        "redis://h:6379/-1",
        "redis://h:6379/0/1",
        "redis://h:6379/0?decode_responses=1",
        "redis://h:6379/0#1",
        "redis://h:6379/0 ",
        "redis://a..b:6379/0",
    ],
)
def test_a_url_that_no_redis_client_takes_is_refused(monkeypatch, capsys, url):
    """One sentence with the value as it is and what is accepted, in our words."""
    assert said_about(monkeypatch, capsys, url) == (
        f"setting REDIS_URL={url!r} is not accepted: redis://host:port/db is accepted, rediss://"
        " for TLS, user:password@ before the host (Redis of the view)\n"
    )


@pytest.mark.parametrize(
    "url",
    [
        "redis://127.0.0.1:6379/0",
        "redis://h",
        "redis://h:6379",
        "redis://[::1]:6379/15",
        "rediss://user:p%40ss@cache.example:6380/1",
        "redis://:pw@h:6379/",
    ],
)
def test_a_url_that_a_redis_client_takes_is_kept(monkeypatch, url):
    """Port and database may be left out; what is accepted makes a connection of the client."""
    monkeypatch.setenv("REDIS_URL", url)
    assert WithRedis.load().redis_url == url
    with redis.Redis.from_url(url) as client:
        assert client.connection_pool.make_connection().host in url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://:hunter2@h/x", "redis://:***@h/x"),
        ("redis://me:hunter2@h/x", "redis://me:***@h/x"),
        ("redis://hunter2@h/x", "redis://***@h/x"),
        ("redis://me:hun/hunter2@h", "redis://me:***@h"),
        ("redis://me:hun?hunter2@h", "redis://me:***@h"),
        ("redis://me:hun#hunter2@h", "redis://me:***@h"),
        ("redis://me:hun@hunter2@h/x", "redis://me:***@h/x"),
        ("redis://me:hun,hunter2@h/x", "redis://me:***@h/x"),
        ("redis://:hunter2", "redis://:***"),
        ("redis://:6379/0", "redis://:***"),
        ("me:hunter2@h:6379", "me:***@h:6379"),
        ("redis:/:hunter2@h", "redis:***@h"),
    ],
)
def test_no_password_of_a_url_is_printed(monkeypatch, capsys, url, shown):
    """However a url is wrong, its password is masked and the rest of it can be read."""
    said = said_about(monkeypatch, capsys, url)
    assert f"REDIS_URL={shown!r} " in said
    assert "hun" not in said


def test_each_address_of_a_list_is_masked_by_itself():
    """Several brokers, each with a password or none."""
    urls = "mqtt://a:1, mqtt://u:hunter2@b:2,mqtt://:hunter3@c"
    assert masked(urls) == "mqtt://a:1, mqtt://u:***@b:2,mqtt://:***@c"


@pytest.mark.parametrize(
    ("urls", "shown"),
    [
        ("mqtt:/h", "mqtt:/h"),
        ("mqtt://h:port", "mqtt://h:port"),
        ("mqtt://a:1,mqtt://u:hunter2@b", "mqtt://a:1,mqtt://u:***@b"),
        ("mqtt://u:hun/ter2@b", "mqtt://u:***@b"),
    ],
)
def test_addresses_of_brokers_are_shown_without_passwords(monkeypatch, capsys, urls, shown):
    """MQTT_URLS is masked no further than needed; the sentence has no words of the library."""
    monkeypatch.setenv("MQTT_URLS", urls)
    with pytest.raises(SystemExit):
        IngestSettings.load()
    said = capsys.readouterr().err
    assert said.startswith(f"setting MQTT_URLS={shown!r} is not accepted: mqtt://host:port is")
    assert "hun" not in said


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


@pytest.mark.parametrize("host", ["256.0.0.1", "a" * 70])
def test_a_health_address_that_cannot_be_used_is_named(host):
    """Not an address of this machine: one sentence with the settings and the address."""
    with pytest.raises(HealthAddressUnusable, match=f"HEALTH_HOST and HEALTH_PORT {host}:1: "):
        HealthServer(host, 1, dict)


def get(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
