"""A certificate authority for tests and small fleets, made with the `openssl` program (3 or newer).

    FOLDER/ca.pem     what cars know the broker by
    FOLDER/private/   keys of the two authorities: they stay here
    FOLDER/broker/    what a broker needs: both authorities' certificates, its own, and its key
    FOLDER/services/  uplink and downlink: `ca.pem` to know the broker by, certificates, keys
    FOLDER/cars/      certificate and key of each car

Cars and services have an authority each, so that a car's certificate opens no door of services. The
broker's certificate is signed by that of the services. A car's CN is its vehicle id. Authorities live
for ten years, and nothing they sign outlives them. Nothing is revoked here (a broker denies cars by
name): who needs that, or has more than some thousand cars, has an authority of its own.
"""

import ipaddress
import os
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from twin.local.access import DOWNLINK, UPLINK
from twin.local.broker_config import CARS_CA, SERVER, SERVICES_CA
from twin.local.errors import LocalError, MissingProgram
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

SERVICES: Final[Mapping[str, str]] = {"uplink": UPLINK, "downlink": DOWNLINK}
"""File name and CN of each service."""

DAYS: Final = 825
"""How long a certificate is valid when nobody says otherwise."""
MOST_DAYS: Final = 3_650
_AUTHORITY_DAYS: Final = MOST_DAYS + 2  # what is signed on the same day does not outlive it
_DAY_S: Final = 86_400
_CURVE: Final = "ec_paramgen_curve:P-256"
_FOLDERS: Final = ("private", "broker", "services", "cars")
_TRUSTED: Final = "ca.pem"
_AUTHORITIES: Final = {"cars": CARS_CA, "services": SERVICES_CA}
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_CA: Final = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign"
_LEAF: Final = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature"


def init(folder: Path, hosts: Sequence[str], days: int = DAYS) -> None:
    """Make both authorities, the broker's certificate for `hosts`, and those of the services.

    Raises `LocalError`, and nothing is left behind: there is an authority already, a host is none,
    openssl is missing or fails.
    """
    names = ",".join(_alternative_name(host) for host in hosts)
    if not names:
        raise LocalError("A broker needs at least one host name or address: --host NAME.")
    for name in (*_FOLDERS, _TRUSTED):
        if (folder / name).exists():
            raise LocalError(
                f"There is an authority in {folder} already ({name}): it is never made anew."
            )
    openssl = _openssl()
    # On the same file system, so that what is whole is moved into its place.
    beside = next(each for each in (folder, *folder.absolute().parents) if each.is_dir())
    try:
        with tempfile.TemporaryDirectory(dir=beside, prefix=".authority-") as scratch:
            new = Path(scratch)
            _make(openssl, new, hosts[0], names, days)
            folder.mkdir(parents=True, exist_ok=True)
            for name in (*_FOLDERS, _TRUSTED):
                (new / name).rename(folder / name)
    except OSError as error:
        raise LocalError(f"No authority can be made in {folder}: {error}.") from error


def _make(openssl: str, folder: Path, host: str, names: str, days: int) -> None:
    for name in _FOLDERS:
        (folder / name).mkdir(mode=0o700 if name == "private" else 0o777)
    for name, file in _AUTHORITIES.items():
        made = folder / "broker" / file
        key = folder / "private" / f"{name}-ca.key"
        _self_signed(openssl, f"cartwin {name}", key, made)
    server = f"extendedKeyUsage=serverAuth\nsubjectAltName={names}"
    own = folder / "broker" / f"{SERVER}.pem"
    _signed(openssl, folder, "services", host[:64], own, days, server)
    for name, common_name in SERVICES.items():
        made = folder / "services" / f"{name}.pem"
        _signed(openssl, folder, "services", common_name, made, days)
    # Who connects knows the broker by the authority that signed it.
    for place in (folder, folder / "services"):
        shutil.copyfile(folder / "broker" / SERVICES_CA, place / _TRUSTED)


def issue(folder: Path, vehicle_id: str, days: int = DAYS) -> Path:
    """Certificate and key of a car; returns the path of the certificate (the key's ends in `.key`).

    Raises `LocalError`: no vehicle id, no authority in `folder` or none that lives so long, the car has
    a certificate already.
    """
    openssl = _signer(folder, [vehicle_id], days)
    made = _car(folder, vehicle_id)
    if made.exists():
        raise LocalError(
            f"{vehicle_id} has a certificate already: {made}. Remove it to make another; the old one"
            " stays valid until it ends."
        )
    return _signed(openssl, folder, "cars", vehicle_id, made, days)


def issue_all(
    folder: Path,
    vehicle_ids: Iterable[str],
    days: int = DAYS,
    progress: Callable[[int, int], None] = lambda made, of: None,
) -> int:
    """Certificates and keys of all cars that have none yet; how many were made.

    So it can be started again when it was ended. `progress` hears how many of how many are made.
    Raises `LocalError` as `issue` does, before any is made when a vehicle id is none.
    """
    wanted = list(dict.fromkeys(vehicle_ids))
    openssl = _signer(folder, wanted, days)
    new = [vehicle_id for vehicle_id in wanted if not _car(folder, vehicle_id).exists()]

    def sign(vehicle_id: str) -> None:
        _signed(openssl, folder, "cars", vehicle_id, _car(folder, vehicle_id), days)

    # The work is in the processes of openssl.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        made = pool.map(sign, new)
        try:
            for count, _ in enumerate(made, 1):
                progress(count, len(new))
        finally:
            pool.shutdown(cancel_futures=True)
    return len(new)


def numbered(cars: int) -> list[str]:
    """The vehicle ids of simulated cars: car-000001 and on."""
    return [f"car-{number:06d}" for number in range(1, cars + 1)]


def access(folder: Path, name: str) -> dict[str, str]:
    """Settings of a service, `uplink` or `downlink`, that connects to the authority's broker."""
    own = folder / "services"
    return {
        "MQTT_CA_FILE": str(own / _TRUSTED),
        "MQTT_CERT_FILE": str(own / f"{name}.pem"),
        "MQTT_KEY_FILE": str(own / f"{name}.key"),
    }


def cars(folder: Path) -> dict[str, str]:
    """Settings of cars that connect to the authority's broker."""
    return {"MQTT_CA_FILE": str(folder / _TRUSTED), "MQTT_CERT_DIR": str(folder / "cars")}


def _car(folder: Path, vehicle_id: str) -> Path:
    return folder / "cars" / f"{vehicle_id}.pem"


def _signer(folder: Path, vehicle_ids: Iterable[str], days: int) -> str:
    """openssl, when certificates can be made for all of them."""
    try:
        for vehicle_id in vehicle_ids:
            check_vehicle_id(vehicle_id)
    except Misaddressed as error:
        raise LocalError(f"{error}.") from None
    if not (folder / "private").is_dir():
        raise LocalError(
            f"There is no authority in {folder}: make one with `cartwin broker ca init`."
        )
    openssl = _openssl()
    if not _lives(openssl, folder / "broker" / CARS_CA, days):
        raise LocalError(
            f"The authority in {folder} ends before {days} days are over: fewer --days, or a new one."
        )
    return openssl


def _openssl() -> str:
    found = shutil.which("openssl")
    if found is None:
        raise MissingProgram(
            "The program openssl is not installed: install it (apt-get install openssl), or bring"
            " certificates from an authority of your own."
        )
    return found


def _alternative_name(host: str) -> str:
    try:
        return f"IP:{ipaddress.ip_address(host)}"
    except ValueError:
        if len(host) > 253 or not all(map(_LABEL.fullmatch, host.split("."))):
            raise LocalError(f"{host!r} is no host name and no address.") from None
        return f"DNS:{host}"


def _lives(openssl: str, certificate: Path, days: int) -> bool:
    """Whether a certificate is still valid after so many days."""
    asked = ["x509", "-noout", "-checkend", str(days * _DAY_S), "-in", str(certificate)]
    done = subprocess.run([openssl, *asked], capture_output=True, check=False)  # noqa: S603 - ours
    return done.returncode == 0


def _self_signed(openssl: str, common_name: str, key: Path, made: Path) -> None:
    _new_key(openssl, key)
    with tempfile.TemporaryDirectory() as scratch:
        config = _config(Path(scratch), common_name, _CA)
        request = ["req", "-new", "-x509", "-config", config, "-extensions", "extensions"]
        named = ["-days", str(_AUTHORITY_DAYS), "-set_serial", _serial(), "-key", str(key)]
        _run(openssl, *request, *named, "-out", str(made))


def _signed(
    openssl: str,
    folder: Path,
    authority: str,
    common_name: str,
    made: Path,
    days: int,
    more: str = "extendedKeyUsage=clientAuth",
) -> Path:
    # Not with_suffix: a vehicle id may have dots.
    key = made.with_name(made.name.removesuffix(".pem") + ".key")
    signer = ["-CA", str(folder / "broker" / _AUTHORITIES[authority])]
    signer += ["-CAkey", str(folder / "private" / f"{authority}-ca.key")]
    # One process for key, request and certificate; the key is nobody else's to read (openssl's way).
    new = ["-newkey", "EC", "-pkeyopt", _CURVE, "-nodes", "-keyout", str(key)]
    with tempfile.TemporaryDirectory() as scratch:
        config = _config(Path(scratch), common_name, f"{_LEAF}\n{more}")
        request = ["req", "-x509", "-config", config, "-extensions", "extensions"]
        named = ["-days", str(days), "-set_serial", _serial(), "-out", str(made)]
        _run(openssl, *request, *new, *signer, *named)
    return made


def _new_key(openssl: str, file: Path) -> None:
    """An elliptic key: small and quick, for cars, too; nobody else's to read."""
    kind = ["-algorithm", "EC", "-pkeyopt", _CURVE]
    _run(openssl, "genpkey", *kind, "-out", str(file), umask=0o077)


def _config(scratch: Path, common_name: str, extensions: str) -> str:
    """A configuration of our own: nothing depends on that of the machine."""
    file = scratch / "openssl.cnf"
    file.write_text(
        f"[req]\nprompt=no\ndistinguished_name=name\n[name]\nCN={common_name}\n"
        f"[extensions]\n{extensions}\n"
    )
    return str(file)


def _serial() -> str:
    return f"0x{secrets.token_hex(15)}"


def _run(openssl: str, *arguments: str, umask: int = 0o022) -> None:
    done = subprocess.run(  # noqa: S603 - our own command line
        [openssl, *arguments], capture_output=True, text=True, check=False, umask=umask
    )
    if done.returncode != 0:
        raise LocalError(f"openssl {arguments[0]} failed: {done.stderr.strip()[-300:]}")
