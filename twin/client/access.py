"""How a car comes to its broker: plain or with TLS, there with a certificate of its own.

The settings are those of the services: mqtts:// in MQTT_URLS, MQTT_CA_FILE; instead of one certificate
there is a folder with one for each car, as `cartwin broker ca` makes it. Here is all that the car's
side knows of TLS; uplink and downlink have theirs in `ingest.access`, which says more of its faults.
"""

import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from twin.kit.mqtt_address import PORTS, Broker


def broker(url: str) -> Broker:
    """`mqtt://host:port` or `mqtts://..`; raises `ValueError` with a sentence for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
        rest = parts.username or parts.path or parts.query or parts.fragment
        known = parts.scheme in PORTS and parts.hostname and port != 0 and not rest
    except ValueError:
        known = None
    if not known or parts.hostname is None:
        raise ValueError(
            f"{url!r} is no MQTT address: mqtt://host:port is accepted, mqtts:// with TLS, several"
            " separated by commas"
        )
    return Broker(parts.hostname, port or PORTS[parts.scheme], parts.scheme == "mqtts")


def context(ca_file: str, cert_file: str = "", key_file: str = "") -> ssl.SSLContext:
    """What a connection is made with: TLS 1.2 at least, the broker's certificate names its host.

    Paths of PEM files: who signed the broker's certificate (empty = the system's authorities), our own
    certificate and its key (empty = none). Raises `ValueError` naming the file.
    """
    try:
        made = ssl.create_default_context(cafile=ca_file or None)
    except ssl.SSLError:
        raise ValueError(f"{ca_file}: no certificate is in it") from None
    except OSError as error:
        raise ValueError(f"{ca_file}: {error.strerror}") from None
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file:
        try:
            # An empty passphrase, or OpenSSL would ask for one at the terminal.
            made.load_cert_chain(cert_file, key_file, password="")
        except OSError as error:
            why = getattr(error, "reason", None) or error.strerror
            raise ValueError(
                f"{cert_file} and {key_file}: a certificate and its key are needed ({why})"
            ) from None
    return made


class Certificates(NamedTuple):
    """Who the cars trust, and the folder with `<vehicle id>.pem` and `.key` of each of them.

    Empty: the system's authorities, and cars that show no certificate.
    """

    ca_file: str = ""
    folder: str = ""

    def files(self, vehicle_id: str) -> tuple[str, str]:
        """Certificate and key of a car; empty when cars show none."""
        if not self.folder:
            return "", ""
        stem = Path(self.folder) / vehicle_id
        return f"{stem}.pem", f"{stem}.key"

    def missing(self, vehicle_id: str) -> str | None:
        """The file of a car that is not there."""
        return next(
            (file for file in self.files(vehicle_id) if file and not Path(file).is_file()), None
        )

    def context(self, vehicle_id: str) -> ssl.SSLContext:
        """What this car's connection is made with. Raises `ValueError`."""
        return context(self.ca_file, *self.files(vehicle_id))
