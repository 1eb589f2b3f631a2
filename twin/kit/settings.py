"""Settings: typed groups read once from the environment at the entry of a process, then frozen.

Each process derives one class from `Settings` and calls `load`. A wrong value stops the process at
start with the variable's name, its value and what is accepted. Of a value that is an address only
what stands before its `@` is masked: the rest is what the reader has to correct.
"""

import re
import sys
from collections.abc import Iterator
from typing import (
    Annotated,
    Any,
    Final,
    Literal,
    NamedTuple,
    NoReturn,
    Self,
    TypeVar,
    get_args,
    get_origin,
)
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr, StringConstraints, ValidationError
from pydantic_settings import BaseSettings

from twin.kit.logs import Format, Level
from twin.kit.security import KafkaSecurity

Port = Annotated[int, Field(ge=0, le=65535)]
Addresses = Annotated[str, StringConstraints(min_length=1)]

_REDIS_URL: Final = (
    "redis://host:port/db is accepted, rediss:// for TLS, user:password@ before the host"
)


def _redis_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        port = parts.port
        host = (parts.hostname or "").encode("idna")
    except ValueError:
        # Not in its words: they quote what stands where the port should, maybe a password.
        raise ValueError(_REDIS_URL) from None
    known = parts.scheme in ("redis", "rediss") and re.fullmatch("/?|/[0-9]{1,9}", parts.path)
    if not known or not host or port == 0 or parts.query or parts.fragment or re.search(r"\s", url):
        raise ValueError(_REDIS_URL)
    return url


RedisUrl = Annotated[str, AfterValidator(_redis_url)]
"""`redis://host:port/db`, checked so far that a Redis client takes it."""


class Settings(KafkaSecurity):
    """What every process has. Field name in capitals = environment variable."""

    log_level: Level = Field(default="info", description="least severe level that is logged")
    log_format: Format = Field(
        default="auto", description="json, console, or auto: console on a terminal"
    )
    health_port: Port = Field(
        default=0, description="HTTP port of /livez /readyz /metrics; 0 = none"
    )
    health_host: str = Field(default="127.0.0.1", description="address the health port listens on")
    kafka_bootstrap: Addresses = Field(
        default="127.0.0.1:9092", description="Kafka brokers, host:port,.."
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment; on a wrong value print one sentence a variable and exit with 2."""
        return read(cls)


Group = TypeVar("Group", bound=BaseSettings)


def read(group: type[Group]) -> Group:
    """A group from the environment; on a wrong value print one sentence a variable and exit with 2."""
    try:
        return group()
    except ValidationError as error:
        _explain(group, error)


class Described(NamedTuple):
    """One setting, for whoever has to choose it."""

    name: str
    default: str
    accepted: str
    meaning: str


def described(group: type[BaseSettings]) -> Iterator[Described]:
    """All settings of a group in their order; `help` and docs/settings.md show them."""
    for name, field in group.model_fields.items():
        default = "" if field.is_required() or field.default_factory else field.default
        if isinstance(default, bool):
            default = str(default).lower()
        elif default is None or isinstance(default, SecretStr):
            default = ""
        yield Described(
            name.upper(),
            str(default),
            _accepted(field.annotation, field.metadata),
            field.description or "",
        )


def _accepted(annotation: Any, metadata: list[Any]) -> str:
    """Choices, or the least and the most."""
    if annotation is bool:
        return "true, false"
    choices = [a for a in (annotation, *get_args(annotation)) if get_origin(a) is Literal]
    if choices:
        return ", ".join(get_args(choices[0]))
    words = {"ge": "at least", "gt": "more than", "le": "at most"}
    bounds = [
        f"{said} {value}"
        for word, said in words.items()
        for one in metadata
        if (value := getattr(one, word, None)) is not None
    ]
    return ", ".join(bounds)


def _explain(cls: type[BaseSettings], error: ValidationError) -> NoReturn:
    for fault in error.errors():
        name = str(fault["loc"][0])
        field = cls.model_fields.get(name)
        about = f" ({field.description})" if field and field.description else ""
        value = fault["input"]
        value = repr(masked(value) if isinstance(value, str) else value)
        if field and field.annotation is SecretStr:
            value = "***"
        message = fault["msg"].removeprefix("Value error, ")
        message = message[0].lower() + message[1:]
        sys.stderr.write(f"setting {name.upper()}={value} is not accepted: {message}{about}\n")
    raise SystemExit(2)


def masked(addresses: str) -> str:
    """A list of addresses without the passwords in them: `redis://:***@host`.

    Passwords need not be escaped rightly (the address may be wrong just for that), so everything
    from the user's name to the last `@` goes. A user without a password may be a token: it goes too.
    """
    # A comma divides addresses only where another scheme follows; passwords have commas as well.
    parts = re.split(r"(,\s*(?=[A-Za-z][A-Za-z0-9+.-]*://))", addresses)
    return "".join(_masked(part) for part in parts)


def _masked(address: str) -> str:
    scheme, slashes, rest = address.partition("://")
    if not slashes:
        scheme, rest = "", address
    before, at, host = rest.rpartition("@")
    if at:
        user, colon, _password = before.partition(":")
        shown = user + colon if colon else ""
        return f"{scheme}{slashes}{shown}***@{host}"
    # A password whose host was forgotten.
    return f"{scheme}{slashes}:***" if rest.startswith(":") else address
