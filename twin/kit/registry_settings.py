"""Where the ids of Avro telemetry come from: settings of every process that writes or reads it.

`twin.kit.registry` does what they say.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from twin.kit.security import check_authorities, password_in
from twin.wire import schema, topics

SUBJECT: Final = f"{topics.TELEMETRY}-value"
MOST: Final = 2**31 - 1
"""The highest id; the lowest is 1."""

_WANTED: Final = (
    "http://host:port is accepted, https:// for TLS, several separated by commas; user and password"
    " are settings of their own"
)


class SchemaRegistry(BaseSettings):
    """Field name in capitals = environment variable; without a URL the others have no meaning."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    schema_registry_url: str = Field(
        default="",
        description="Confluent-compatible schema registry that gives the ids of Avro telemetry,"
        " http(s)://host:port,..; empty = the package's ids",
    )
    schema_registry_ca_file: str = Field(
        default="",
        description="file of the authorities that signed the registry's certificate (PEM); empty = the"
        " system's",
    )
    schema_registry_username: str = Field(
        default="", description="user at the registry; empty = none"
    )
    schema_registry_password_file: str = Field(
        default="",
        validate_default=True,
        description="file whose first line is the user's password; read once",
    )
    schema_registry_register: bool = Field(
        default=True,
        description=f"register the schema under subject {SUBJECT} when it is not there; false = wait"
        " until somebody has",
    )
    schema_ids: str = Field(
        default="",
        description="ids that a registry gave to the package's schemas, to read them without it:"
        f" 17={next(iter(schema.names()))},..",
    )

    @field_validator("schema_registry_url")
    @classmethod
    def _is_a_url(cls, urls: str) -> str:
        for url in urls.split(",") if urls else ():
            try:
                parts = urlsplit(url.strip())
                fits = parts.port != 0 and bool(parts.hostname) and "@" not in parts.netloc
            except ValueError:
                # Not in its words: they quote what stands where the port should, maybe a password.
                raise ValueError(_WANTED) from None
            rest = parts.query or parts.fragment or re.search(r"\s", url.strip())
            if parts.scheme not in ("http", "https") or not fits or rest:
                raise ValueError(_WANTED)
        return urls

    @field_validator("schema_registry_ca_file")
    @classmethod
    def _registry_authorities(cls, path: str, info: ValidationInfo) -> str:
        urls = info.data.get("schema_registry_url")
        if path and urls is not None:
            if "https://" not in urls:
                raise ValueError(
                    "SCHEMA_REGISTRY_URL is not spoken to in TLS; https://host:port is"
                )
            check_authorities(path)
        return path

    @field_validator("schema_registry_username")
    @classmethod
    def _registry_user(cls, user: str) -> str:
        if ":" in user:
            raise ValueError("a name without a colon is accepted")
        return user

    @field_validator("schema_registry_password_file")
    @classmethod
    def _registry_password(cls, path: str, info: ValidationInfo) -> str:
        user = info.data.get("schema_registry_username")
        if path and user == "":
            raise ValueError("whose password it is is missing: SCHEMA_REGISTRY_USERNAME")
        if user and not path:
            raise ValueError("with SCHEMA_REGISTRY_USERNAME, the file of the password is needed")
        if path and user:
            password_in(path)
        return path

    @field_validator("schema_ids")
    @classmethod
    def _are_ids(cls, told: str) -> str:
        told_ids(told)
        return told

    @property
    def told_ids(self) -> dict[int, int]:
        """SCHEMA_IDS: a registry's id -> the package's id of the same schema."""
        return told_ids(self.schema_ids)


def told_ids(ids: str) -> dict[int, int]:
    """SCHEMA_IDS as the codec takes it. Raises `ValueError` with a sentence for the user."""
    names = schema.names()
    found: dict[int, int] = {}
    for one in ids.split(",") if ids.strip() else ():
        number, equals, name = (part.strip() for part in one.partition("="))
        if not equals or not re.fullmatch("[0-9]{1,10}", number) or name not in names:
            raise ValueError(f"id=schema,.. is accepted, with a schema of {', '.join(names)}")
        own = names[name]
        if not 0 < int(number) <= MOST or found.setdefault(int(number), own) != own:
            raise ValueError(f"ids from 1 to {MOST} are accepted, each once")
        if int(number) in names.values() and int(number) != own:
            raise ValueError(f"{number} is the package's id of another schema")
    return found
