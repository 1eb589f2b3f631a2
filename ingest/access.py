"""How a broker lets us in: TLS, a certificate of ours, a user's name and password.

The files are read again for every connection, so a renewed certificate or password needs no restart.
TLS is 1.2 at least; the broker's certificate must be signed by who we trust and name the host that
MQTT_URLS names. Every fault names the setting and the file.
"""

import ssl
from pathlib import Path
from typing import NamedTuple

from ingest.errors import AccessUnusable
from ingest.packets import User

LONGEST_PASSWORD = 65_535
"""Bytes; what MQTT can carry."""


class Access(NamedTuple):
    """Paths of PEM files and of the password; an empty one is not used."""

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""

    def context(self) -> ssl.SSLContext:
        """What a TLS connection is made with. Raises `AccessUnusable`."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file or None)
        except ssl.SSLError:
            raise AccessUnusable("MQTT_CA_FILE", self.ca_file, "no certificate is in it") from None
        except OSError as error:
            raise AccessUnusable("MQTT_CA_FILE", self.ca_file, _why(error)) from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert_file:
            self._present(context)
        return context

    def user(self) -> User | None:
        """Name and password for CONNECT; None without. Raises `AccessUnusable`."""
        if not self.username:
            return None
        if not self.password_file:
            return User(self.username)
        try:
            with Path(self.password_file).open("rb") as lines:
                password = lines.readline(LONGEST_PASSWORD + 2).rstrip(b"\r\n")
        except OSError as error:
            raise AccessUnusable("MQTT_PASSWORD_FILE", self.password_file, _why(error)) from None
        if not 0 < len(password) <= LONGEST_PASSWORD:
            raise AccessUnusable(
                "MQTT_PASSWORD_FILE",
                self.password_file,
                f"its first line has {'no' if not password else 'too many'} bytes",
            )
        return User(self.username, password)

    def _present(self, context: ssl.SSLContext) -> None:
        for name, path in (("MQTT_CERT_FILE", self.cert_file), ("MQTT_KEY_FILE", self.key_file)):
            try:
                Path(path).open("rb").close()
            except OSError as error:
                raise AccessUnusable(name, path, _why(error)) from None
        try:
            # An empty passphrase, or OpenSSL would ask for one at the terminal.
            context.load_cert_chain(self.cert_file, self.key_file, password="")
        except (ssl.SSLError, ValueError) as error:
            raise AccessUnusable(
                "MQTT_KEY_FILE",
                self.key_file,
                "a PEM key without passphrase that belongs to the PEM certificate in MQTT_CERT_FILE"
                f" {self.cert_file!r} is needed ({getattr(error, 'reason', None) or error})",
            ) from None


def why_refused(error: OSError, broker: str, access: Access) -> str:
    """Why a connection with TLS was not made, in a sentence."""
    if isinstance(error, ssl.SSLCertVerificationError):
        judge = (
            repr(access.ca_file) if access.ca_file else "is empty: the system's authorities judge"
        )
        return (
            f"the certificate of {broker} is not accepted: {error.verify_message.rstrip('.')};"
            f" MQTT_CA_FILE {judge}"
        )
    if isinstance(error, ssl.SSLError | ConnectionResetError | ConnectionAbortedError):
        return f"{broker} speaks no TLS that we speak, or none at all: {why_lost(error)}"
    return f"no TCP connection: {error}"


def why_lost(error: Exception) -> str:
    """Why a connection broke, in a sentence."""
    reason = getattr(error, "reason", None) or ""
    if isinstance(error, ssl.SSLError) and "ALERT" in reason:
        return f"the broker ends TLS ({reason.partition('ALERT_')[2].replace('_', ' ').lower()})"
    return f"the connection broke: {error}"


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
