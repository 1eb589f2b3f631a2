"""How the processes are started: settings, help, exit codes."""

import pytest
from pydantic import ValidationError

from ingest.__main__ import main
from ingest.settings import Broker, DownlinkSettings, UplinkSettings, parse_brokers


def test_the_place_in_the_list_is_the_shard():
    """Brokers keep their order; the port may be left out."""
    assert parse_brokers("mqtt://a:1, mqtt://b,mqtt://[::1]:18831") == (
        Broker("a", 1),
        Broker("b", 1883),
        Broker("::1", 18831),
    )


@pytest.mark.parametrize(
    "urls",
    [
        "",
        "localhost:1883",
        "http://a:1",
        "mqtt://",
        "mqtt://a:port",
        "mqtt://a:99999",
        "mqtt://user:secret@a:1",
        "mqtt://a:1/path",
        "mqtt://a:1?x=1",
        "mqtt://a:1,,mqtt://b:1",
        "mqtt://a:1,mqtt://a:1",
    ],
)
def test_what_is_no_list_of_brokers_is_refused(monkeypatch, urls):
    """Anything else is refused at the start."""
    monkeypatch.setenv("MQTT_URLS", urls)
    with pytest.raises(ValidationError):
        UplinkSettings()


@pytest.mark.parametrize(
    ("name", "value"),
    [("VALIDATION", "sometimes"), ("UPLINK_WINDOW", "0"), ("UPLINK_WINDOW", "many")],
)
def test_a_wrong_setting_ends_with_one_sentence(monkeypatch, capsys, name, value):
    """The process stops with exit code 2 and names the variable, its value and what it is for."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as end:
        main(["uplink"])
    assert end.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert f"{name}={value!r} is not accepted" in lines[0]


@pytest.mark.parametrize(
    ("process", "settings"), [("uplink", UplinkSettings), ("downlink", DownlinkSettings)]
)
def test_help_teaches_every_environment_variable(capsys, process, settings):
    """--help lists each variable of the process with its meaning and default."""
    with pytest.raises(SystemExit) as end:
        main([process, "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    for name, field in settings.model_fields.items():
        assert name.upper() in told
        assert field.description in told
        assert f"[{field.default}]" in told


def test_a_wrong_word_is_a_usage_error(capsys):
    """An unknown process ends with exit code 2 and the words that are accepted."""
    with pytest.raises(SystemExit) as end:
        main(["sidelink"])
    assert end.value.code == 2
    assert "uplink" in capsys.readouterr().err
