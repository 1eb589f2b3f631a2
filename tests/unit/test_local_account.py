"""Mosquitto that root starts: what its account may not do is said before it matters."""

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from twin.cli import app
from twin.local import account
from twin.local.broker_config import BrokerSettings, Need

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may become somebody else")

NOBODY = "nobody"


@pytest.fixture
def place(monkeypatch):
    """A folder that everybody may enter; the account is one that every machine has."""
    monkeypatch.setattr(account, "MOSQUITTO", NOBODY)
    folder = Path(tempfile.mkdtemp(prefix="cartwin-account-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def config(*words):
    told = CliRunner().invoke(
        app,
        ["broker", "config", "--kind", "mosquitto", "--rate", "5", "--outage", "6", *words],
    )
    assert told.exit_code == 0
    return " ".join(told.output.split())


def test_a_new_folder_is_the_account_s(place):
    """Mosquitto may write its state there, and nothing more is said; the files stay root's."""
    told = config("--out", str(place / "new"))
    assert "may not" not in told
    assert (place / "new").owner() == NOBODY
    assert (place / "new" / "mosquitto.conf").owner() == "root"


def test_a_folder_that_was_there_stays_whose_it_was(place):
    """What to do is said, and helps."""
    folder = place / "there"
    folder.mkdir()
    told = config("--out", str(folder))
    assert f"runs as nobody, who may not write to {folder}" in told
    assert f"Do: chown nobody: {folder}" in told
    assert folder.owner() == "root"
    account.give(folder, NOBODY)
    assert "may not" not in config("--out", str(folder))


def test_a_key_that_the_account_may_not_read_is_named(place):
    """Mosquitto would not start."""
    tls = place / "tls"
    tls.mkdir()
    (tls / "server.key").touch(0o600)
    told = config("--out", str(place / "new"), "--mode", "tls", "--tls", str(tls))
    assert f"read {tls}/server.key: it would not start. Do: chown nobody: {tls}/server.key" in told


def test_a_folder_that_the_account_cannot_reach_is_no_place(place):
    """A parent that is root's alone is named."""
    (place / "own").mkdir(0o700)
    told = config("--out", str(place / "own" / "new"))
    assert f"It may not even enter {place}/own: choose another place" in told


def test_who_stays_root_or_is_configured_for_another_machine_hears_nothing(place):
    """`user root`, and files for elsewhere."""
    settings = BrokerSettings(Need(5, 6), place, user="root")
    assert account.account(settings) is None
    assert "may not" not in config("--out", str(place), "--folder", "/mosquitto/config")
