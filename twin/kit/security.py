"""How our Kafka clients secure a connection: TLS, a certificate of ours, SASL. One group for all of them.

    KAFKA_SECURITY_PROTOCOL, KAFKA_SSL_CA, KAFKA_SASL_.. -> checked together -> librdkafka, aiokafka

It is one thing per process and no call's: `twin.kit.kafka` reads it for every client that it makes, and
every process's settings contain it, so that what contradicts itself ends the process at start. So the
password's file is read once in a process, whoever asks first: while it is replaced, those that run go on
with the password that they have, until they are started again.
"""

import ssl
from functools import lru_cache
from typing import Any, Final, Literal, get_args

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Protocol = Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"]
Mechanism = Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]

_TLS: Final = ("SSL", "SASL_SSL")
_CA_WANTED: Final = "a PEM file with certificates is accepted"
_FILE_WANTED: Final = "a text file whose first line is the password is accepted"
_LONGEST: Final = 4096
"""Characters of a password."""
_SASL: Final = ("SASL_SSL", "SASL_PLAINTEXT")


class KafkaSecurity(BaseSettings):
    """Field name in capitals = environment variable; an empty one counts as not given."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    kafka_security_protocol: Protocol = Field(
        default="PLAINTEXT", description="how Kafka's brokers are spoken to"
    )
    kafka_ssl_ca: str = Field(
        default="",
        description="file of the authorities that signed the brokers' certificates (PEM); empty = the"
        " system's",
    )
    kafka_ssl_cert: str = Field(
        default="",
        description="file of our certificate for brokers that know users by it (PEM); empty = none",
    )
    kafka_ssl_key: str = Field(
        default="",
        validate_default=True,
        description="file of its key, without passphrase (PEM)",
    )
    kafka_sasl_mechanism: Mechanism | None = Field(
        default=None, validate_default=True, description="how a user is proved to Kafka"
    )
    kafka_sasl_username: str = Field(default="", validate_default=True, description="user at Kafka")
    kafka_sasl_password: SecretStr = Field(default=SecretStr(""), description="the user's password")
    kafka_sasl_password_file: str = Field(
        default="",
        validate_default=True,
        description="file whose first line is the password, instead of KAFKA_SASL_PASSWORD; read once",
    )

    @field_validator("kafka_security_protocol", "kafka_sasl_mechanism", mode="before")
    @classmethod
    def _not_given(cls, value: Any, info: ValidationInfo) -> Any:
        return value or (None if info.field_name == "kafka_sasl_mechanism" else "PLAINTEXT")

    @field_validator("kafka_ssl_ca")
    @classmethod
    def _authorities(cls, path: str, info: ValidationInfo) -> str:
        if path and _fits(info, _TLS, "TLS"):
            check_authorities(path)
        return path

    @field_validator("kafka_ssl_cert")
    @classmethod
    def _certificate(cls, path: str, info: ValidationInfo) -> str:
        if path:
            _fits(info, _TLS, "TLS")
        return path

    @field_validator("kafka_ssl_key")
    @classmethod
    def _key(cls, path: str, info: ValidationInfo) -> str:
        certificate = info.data.get("kafka_ssl_cert")
        if certificate is None:
            return path
        if path and not certificate:
            raise ValueError("its certificate is missing: KAFKA_SSL_CERT")
        if certificate and not path:
            raise ValueError("with KAFKA_SSL_CERT, the file of its key is needed")
        if path:
            check_pair(certificate, path)
        return path

    @field_validator("kafka_sasl_mechanism", "kafka_sasl_username")
    @classmethod
    def _who(cls, value: str | None, info: ValidationInfo) -> str | None:
        protocol = info.data.get("kafka_security_protocol")
        if value:
            _fits(info, _SASL, "SASL")
        elif protocol in _SASL:
            one = ", ".join(get_args(Mechanism))
            what = f"one of {one}" if info.field_name == "kafka_sasl_mechanism" else "a user"
            raise ValueError(f"with KAFKA_SECURITY_PROTOCOL {protocol}, {what} is needed")
        return value

    @field_validator("kafka_sasl_password")
    @classmethod
    def _password(cls, password: SecretStr, info: ValidationInfo) -> SecretStr:
        if password:
            _fits(info, _SASL, "SASL")
        return password

    @field_validator("kafka_sasl_password_file")
    @classmethod
    def _password_file(cls, path: str, info: ValidationInfo) -> str:
        protocol, password = (
            info.data.get(f"kafka_{name}") for name in ("security_protocol", "sasl_password")
        )
        if path and password:
            raise ValueError("beside it there is KAFKA_SASL_PASSWORD; one of the two is accepted")
        if path and _fits(info, _SASL, "SASL"):
            password_in(path)
        elif protocol in _SASL and password is not None and not password:
            raise ValueError(
                f"with KAFKA_SECURITY_PROTOCOL {protocol}, this or KAFKA_SASL_PASSWORD is needed"
            )
        return path

    @property
    def kafka_user(self) -> tuple[Mechanism, str, str] | None:
        """Mechanism, user's name and password; None without SASL."""
        if self.kafka_sasl_mechanism is None:
            return None
        path = self.kafka_sasl_password_file
        password = password_in(path) if path else self.kafka_sasl_password.get_secret_value()
        return self.kafka_sasl_mechanism, self.kafka_sasl_username, password

    def kafka_tls(self) -> ssl.SSLContext | None:
        """What a connection of Python's is made with; None without TLS."""
        if self.kafka_security_protocol not in _TLS:
            return None
        context = ssl.create_default_context(cafile=self.kafka_ssl_ca or None)
        if self.kafka_ssl_cert:
            context.load_cert_chain(self.kafka_ssl_cert, self.kafka_ssl_key)
        return context

    def kafka_client(self) -> dict[str, str]:
        """The same as settings of librdkafka."""
        told = {"security.protocol": self.kafka_security_protocol.lower()}
        if self.kafka_ssl_ca:
            told["ssl.ca.location"] = self.kafka_ssl_ca
        if self.kafka_ssl_cert:
            told["ssl.certificate.location"] = self.kafka_ssl_cert
            told["ssl.key.location"] = self.kafka_ssl_key
        if self.kafka_user is not None:
            names = ("sasl.mechanism", "sasl.username", "sasl.password")
            told |= zip(names, self.kafka_user, strict=True)
        return told


def _fits(info: ValidationInfo, protocols: tuple[str, ...], what: str) -> bool:
    """Whether a setting of TLS or SASL may be there; raises `ValueError` when it contradicts."""
    protocol = info.data.get("kafka_security_protocol")
    if protocol is not None and protocol not in protocols:
        raise ValueError(
            f"with KAFKA_SECURITY_PROTOCOL {protocol} there is no {what}; it goes with"
            f" {' or '.join(protocols)}"
        )
    return protocol is not None


def check_authorities(path: str) -> None:
    """Raises `ValueError` with a sentence when no certificate of an authority can be read there."""
    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise ValueError(f"no certificate is in it; {_CA_WANTED}") from None
    except OSError as error:
        raise ValueError(f"{error.strerror}; {_CA_WANTED}") from None


def check_pair(certificate: str, key: str) -> None:
    """Raises `ValueError` with a sentence when the two files are not a certificate and its key."""
    try:
        # A key with a passphrase must not make OpenSSL ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password="")
    except ssl.SSLError:
        raise ValueError(
            f"it is not the key, without passphrase, of the certificate in {certificate}"
        ) from None
    except OSError as error:
        missing = key if error.filename is None else error.filename
        raise ValueError(f"{missing}: {error.strerror}; two PEM files are accepted") from None


def password_in(path: str) -> str:
    """The password in a file, read once in a process. Raises `ValueError` with a sentence."""
    try:
        found = _first_line(path)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ValueError(f"{why}; {_FILE_WANTED}") from None
    if not found:
        raise ValueError(f"its first line is empty; {_FILE_WANTED}")
    if len(found) > _LONGEST:
        raise ValueError(f"its first line has more than {_LONGEST} characters; {_FILE_WANTED}")
    return found


@lru_cache(maxsize=8)
def _first_line(path: str) -> str:
    """What stands before the first line break; of a file without one no more than is looked at."""
    with open(path, encoding="utf-8", newline="\n") as lines:
        return lines.readline(_LONGEST + 2).rstrip("\r\n")
