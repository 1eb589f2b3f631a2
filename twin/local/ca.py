"""A certificate authority for tests and small fleets, made with the `openssl` program.

    FOLDER/private/   keys of the two authorities: they stay here
    FOLDER/broker/    what a broker needs: both authorities' certificates, its own, and its key
    FOLDER/services/  uplink and downlink: `ca.pem` to know the broker by, certificates, keys
    FOLDER/cars/      `ca.pem`, and certificate and key of each car

Cars and services have an authority each, so that a car's certificate opens no door of services. The
broker's certificate is signed by that of the services. A car's CN is its vehicle id. Nothing is
revoked here: who needs that, or has more than some thousand cars, has an authority of its own.
"""

import ipaddress
import re
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from twin.local.access import DOWNLINK, UPLINK
from twin.local.broker_config import CARS_CA, SERVER, SERVICES_CA
from twin.local.errors import LocalError, MissingProgram
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

SERVICES: Final[Mapping[str, str]] = {"uplink": UPLINK, "downlink": DOWNLINK}
"""File name and CN of each service."""

_AUTHORITIES: Final = {"cars": CARS_CA, "services": SERVICES_CA}
_LABEL: Final = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", re.ASCII)
_CA: Final = "basicConstraints=critical,CA:TRUE,pathlen:0\nkeyUsage=critical,keyCertSign,cRLSign"
_LEAF: Final = "basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature"


def init(folder: Path, hosts: Sequence[str], days: int = 825) -> None:
    """Make both authorities, the broker's certificate for `hosts`, and those of the services.

    Raises `LocalError`: there is an authority already, a host is none, openssl is missing or fails.
    """
    names = ",".join(_alternative_name(host) for host in hosts)
    if not names:
        raise LocalError("A broker needs at least one host name or address: --host NAME.")
    if (folder / "private").exists():
        raise LocalError(f"There is an authority in {folder} already: it is never made anew.")
    openssl = _openssl()
    for name in ("private", "broker", "services", "cars"):
        (folder / name).mkdir(parents=True)
    for name, file in _AUTHORITIES.items():
        made = folder / "broker" / file
        key = folder / "private" / f"{name}-ca.key"
        _self_signed(openssl, f"cartwin {name}", key, made, days)
    server = f"extendedKeyUsage=serverAuth\nsubjectAltName={names}"
    _signed(openssl, folder, "services", hosts[0][:64], folder / "broker" / SERVER, days, server)
    for name, common_name in SERVICES.items():
        _signed(openssl, folder, "services", common_name, folder / "services" / name, days)
    # Who connects knows the broker by the authority that signed it.
    for name in _AUTHORITIES:
        shutil.copyfile(folder / "broker" / SERVICES_CA, folder / name / "ca.pem")


def issue(folder: Path, vehicle_id: str, days: int = 825) -> Path:
    """Certificate and key of a car; returns the path of the certificate (the key's ends in `.key`).

    Raises `LocalError`: no vehicle id, no authority in `folder`, the car has a certificate already.
    """
    try:
        check_vehicle_id(vehicle_id)
    except Misaddressed as error:
        raise LocalError(f"{error}.") from None
    if not (folder / "private").is_dir():
        raise LocalError(
            f"There is no authority in {folder}: make one with `cartwin broker ca init`."
        )
    stem = folder / "cars" / vehicle_id
    if _certificate(stem).exists():
        raise LocalError(
            f"{vehicle_id} has a certificate already: {_certificate(stem)}. Remove it to make"
            " another; the old one stays valid until it ends."
        )
    return _signed(_openssl(), folder, "cars", vehicle_id, stem, days)


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


def _certificate(stem: Path) -> Path:
    # Not with_suffix: a vehicle id may have dots.
    return stem.with_name(f"{stem.name}.pem")


def _self_signed(openssl: str, common_name: str, key: Path, made: Path, days: int) -> None:
    _new_key(openssl, key)
    with tempfile.TemporaryDirectory() as scratch:
        config = _config(Path(scratch), common_name, _CA)
        request = ["req", "-new", "-x509", "-config", config, "-extensions", "extensions"]
        named = ["-days", str(days), "-set_serial", _serial(), "-key", str(key)]
        _run(openssl, *request, *named, "-out", str(made))


def _signed(
    openssl: str,
    folder: Path,
    authority: str,
    common_name: str,
    stem: Path,
    days: int,
    more: str = "extendedKeyUsage=clientAuth",
) -> Path:
    made, key = _certificate(stem), stem.with_name(f"{stem.name}.key")
    _new_key(openssl, key)
    with tempfile.TemporaryDirectory() as scratch:
        config = _config(Path(scratch), common_name, f"{_LEAF}\n{more}")
        asked = str(Path(scratch) / "asked.csr")
        _run(openssl, "req", "-new", "-config", config, "-key", str(key), "-out", asked)
        signer = ["-CA", str(folder / "broker" / _AUTHORITIES[authority])]
        signer += ["-CAkey", str(folder / "private" / f"{authority}-ca.key")]
        extensions = ["-extfile", config, "-extensions", "extensions"]
        named = ["-days", str(days), "-set_serial", _serial(), "-out", str(made)]
        _run(openssl, "x509", "-req", "-in", asked, *signer, *extensions, *named)
    return made


def _new_key(openssl: str, file: Path) -> None:
    """An elliptic key: small and quick, for cars, too; nobody else's to read."""
    kind = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
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
