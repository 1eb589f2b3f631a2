"""The small authority: what it signs it outlives, and what fails leaves nothing behind."""

import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from twin.local import ca
from twin.local.errors import LocalError

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")


def days_of(certificate):
    """Days from now until a certificate ends."""
    told = subprocess.check_output(["openssl", "x509", "-noout", "-enddate", "-in", certificate])
    ends = re.fullmatch(r"notAfter=(.*) GMT\n", told.decode())[1]
    when = datetime.strptime(ends, "%b %d %H:%M:%S %Y").replace(tzinfo=UTC)
    return (when - datetime.now(UTC)) / timedelta(days=1)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A folder in a folder that is not there yet."""
    folder = tmp_path_factory.mktemp("made") / "deep" / "ca"
    ca.init(folder, ["127.0.0.1"])
    return folder


def test_authorities_outlive_what_they_sign(authority):
    """Ten years, and 825 days for the broker's, the services' and the cars' certificates."""
    car = ca.issue(authority, "car-1")
    for file in ("cars-ca.pem", "services-ca.pem"):
        assert days_of(authority / "broker" / file) > 3_650
    for leaf in (car, authority / "broker" / "server.pem", authority / "services" / "uplink.pem"):
        assert 824 < days_of(leaf) <= 825
    assert days_of(ca.issue(authority, "longest", ca.MOST_DAYS)) < days_of(
        authority / "broker" / "cars-ca.pem"
    )


def test_nothing_is_signed_for_longer_than_its_authority_lives(authority):
    """It would be valid and open no door."""
    with pytest.raises(LocalError, match=r"ends before 3700 days are over"):
        ca.issue(authority, "late", 3_700)
    assert not list((authority / "cars").glob("late*"))


@pytest.mark.parametrize("vehicle_id", ["ca", ".", "..", "a.pem"])
def test_every_vehicle_id_is_a_name_for_files(authority, vehicle_id):
    """One that is called like the authority's file, or like a folder, is none the worse."""
    trusted = (authority / "ca.pem").read_bytes()
    made = ca.issue(authority, vehicle_id)
    assert made == authority / "cars" / f"{vehicle_id}.pem"
    assert made.is_file()
    assert (authority / "cars" / f"{vehicle_id}.key").stat().st_mode & 0o777 == 0o600
    assert (authority / "ca.pem").read_bytes() == trusted


def test_the_keys_of_the_authorities_are_for_their_owner_only(authority):
    """The folder, and each file in it."""
    private = authority / "private"
    assert private.stat().st_mode & 0o777 == 0o700
    assert [file.stat().st_mode & 0o777 for file in private.iterdir()] == [0o600] * 2


def test_an_authority_is_never_made_anew(authority):
    """A second init is refused and changes nothing."""
    before = (authority / "broker" / "cars-ca.pem").read_bytes()
    with pytest.raises(LocalError, match="already"):
        ca.init(authority, ["127.0.0.1"])
    assert (authority / "broker" / "cars-ca.pem").read_bytes() == before


@pytest.mark.parametrize("there", [True, False])
def test_an_init_that_fails_leaves_nothing_behind(tmp_path, monkeypatch, there):
    """Neither in a folder that was there nor beside one that was not; and it can be tried again."""
    folder = tmp_path / "ca"
    if there:
        folder.mkdir()
        (folder / "mine.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    run, calls = ca._run, []

    def failing(openssl, *arguments, **more):
        calls.append(arguments)
        if len(calls) == 6:
            raise LocalError("openssl failed")
        run(openssl, *arguments, **more)

    monkeypatch.setattr(ca, "_run", failing)
    with pytest.raises(LocalError, match="openssl failed"):
        ca.init(folder, ["127.0.0.1"])
    assert sorted(tmp_path.rglob("*")) == before
    ca.init(folder, ["127.0.0.1"])
    assert sorted(each.name for each in folder.iterdir() if each.name != "mine.txt") == [
        "broker", "ca.pem", "cars", "private", "services",
    ]  # fmt: skip


def test_a_place_where_nothing_can_be_made_is_named(tmp_path):
    """One sentence, no trace."""
    (tmp_path / "file").write_text("")
    with pytest.raises(LocalError, match="No authority can be made in"):
        ca.init(tmp_path / "file", ["127.0.0.1"])
