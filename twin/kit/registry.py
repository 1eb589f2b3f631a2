"""Avro ids of telemetry from a Confluent-compatible schema registry, when SCHEMA_REGISTRY_URL is set.

    SCHEMA_REGISTRY_URL, .. -> the package's schemas looked up, or registered -> `codec.use_ids`

Whoever writes or reads telemetry calls `use_ids` once, at its start; nothing is asked of the registry
while messages flow, but for an id that nobody here has seen, in a record of Kafka (`Lookup`). The ids of
the package stay readable, so what was written before there was a registry is read with one. The other
way round a registry's ids mean nothing to who may not ask it: SCHEMA_IDS tells them.

The registry's client needs packages that nothing else here does (extra `registry`): it is imported only
with a registry.
"""

import json
import logging
import ssl
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Final, NoReturn, Protocol

from twin.kit import logs
from twin.kit.registry_settings import MOST, SUBJECT, SchemaRegistry
from twin.kit.security import password_in
from twin.native.telemetry import Reader
from twin.wire import codec, schema
from twin.wire.errors import CartwinError, UnknownSchema

log = logs.get(__name__)

REMEMBERED: Final = 32
"""Ids that a process looks up and remembers, and as many that the registry does not know."""

_UNKNOWN_S: Final = 60.0
_SILENT_S: Final = 10.0
_ANSWER_S: Final = 2.0
_NOT_FOUND: Final = 404


class RegistryUnavailable(CartwinError):
    """The registry does not answer, or not with what we need; it may later."""


class RegistryUnusable(CartwinError):
    """No waiting helps."""


class Client(Protocol):
    """What we need of `confluent_kafka.schema_registry.SchemaRegistryClient`."""

    def lookup_schema(self, subject_name: str, schema: Any) -> Any:
        """The schema as it is registered under a subject: `schema_id`."""

    def register_schema(self, subject_name: str, schema: Any) -> int:
        """The id of the schema, which is made when there is none."""

    def get_schema(self, schema_id: int) -> Any:
        """The schema of an id: `schema_str`."""

    def close(self) -> None:
        """Leave the registry."""


def use_ids(settings: SchemaRegistry, timeout_s: float = 60) -> None:
    """Make the codec write and read the ids that are asked for; returns when the registry has told them.

    Raises `RegistryUnavailable` after `timeout_s`, naming what is missing; `RegistryUnusable` at once.
    Whoever waits for long is told for what.
    """
    told = settings.told_ids
    if not settings.schema_registry_url:
        codec.use_ids(told)
        return
    connect = partial(_client, settings)
    start, said = time.monotonic(), False
    while True:
        try:
            with closing(connect()) as client:
                found = _ids(client, settings)
            break
        except RegistryUnavailable as error:
            waited = time.monotonic() - start
            if waited > timeout_s:
                raise
            if not said and _ANSWER_S <= waited < timeout_s:
                said = True
                until = datetime.now(UTC) + timedelta(seconds=timeout_s - waited)
                log.warning(
                    "waiting for the schema registry",
                    why=str(error),
                    until=until.isoformat(timespec="seconds"),
                )
            time.sleep(0.2)
    current = next(number for number, own in found.items() if own == schema.CURRENT_ID)
    try:
        codec.use_ids({**told, **found}, current, Lookup(connect, settings.schema_registry_url))
    except ValueError as error:
        raise RegistryUnusable(
            f"the schema registry at {settings.schema_registry_url} cannot be used: {error}"
        ) from None
    log.info("schema ids", registry=settings.schema_registry_url, written=current, known=found)


class Lookup:
    """The reader of an id that nobody here has seen: the registry is asked for it once.

    Bounded: of REMEMBERED unknown ids in a minute no more are asked for, nor anything for a while when
    it does not answer. Such records are `UnknownSchema`: they are set aside, and can be sent again.
    """

    def __init__(
        self, connect: Callable[[], Client], url: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._connect = connect
        self._url = url
        self._clock = clock
        self._readers: dict[int, Reader] = {}
        self._unknown: dict[int, tuple[float, str]] = {}
        self._silent_until = clock()

    def __call__(self, number: int) -> Reader:
        """Raises `UnknownSchema`."""
        return self._readers.get(number) or self._asked(number)

    def _asked(self, number: int) -> Reader:
        now = self._clock()
        known = self._unknown.get(number)
        if known is not None and now < known[0]:
            raise UnknownSchema(known[1])
        if now < self._silent_until:
            self._refuse(number, f"the schema registry at {self._url} did not answer just now")
        # Oldest first, and each is kept for the same time.
        while self._unknown and now >= next(iter(self._unknown.values()))[0]:
            del self._unknown[next(iter(self._unknown))]
        if len(self._unknown) >= REMEMBERED or len(self._readers) >= REMEMBERED:
            self._refuse(number, f"more than {REMEMBERED} others had to be looked up")
        try:
            found = codec.reader_of(self._text(number))
        except UnknownSchema as error:
            why = f"schema id {number} is not known: {error}"
            self._unknown[number] = (now + _UNKNOWN_S, why)
            raise UnknownSchema(why) from None
        except RegistryUnavailable as error:
            self._silent_until = self._clock() + _SILENT_S
            self._refuse(number, str(error))
        self._readers[number] = found
        return found

    def _text(self, number: int) -> str:
        try:
            # Not kept: it remembers all answers, without a bound, and holds a connection.
            with closing(self._connect()) as client:
                return str(client.get_schema(number).schema_str)
        except Exception as error:
            if _status(error) == _NOT_FOUND:
                raise UnknownSchema(f"nor to the schema registry at {self._url}") from None
            raise _unavailable(self._url, error) from None

    def _refuse(self, number: int, why: str) -> NoReturn:
        raise UnknownSchema(f"schema id {number} is not known, and {why}")


def _client(settings: SchemaRegistry) -> Client:
    try:
        from confluent_kafka.schema_registry import SchemaRegistryClient  # noqa: PLC0415 - see above
    except ImportError as error:
        raise RegistryUnusable(
            f"SCHEMA_REGISTRY_URL is set, but the registry's client lacks {error.name}: pip install"
            " 'cartwin[registry]', or leave the URL empty"
        ) from None
    # A line for each request, else.
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # We wait ourselves, and say for what.
    asked: dict[str, Any] = {
        "url": settings.schema_registry_url,
        "timeout": _ANSWER_S,
        "max.retries": 0,
    }
    system = ssl.get_default_verify_paths()
    authorities = settings.schema_registry_ca_file or system.cafile or system.capath
    if authorities:
        asked["ssl.ca.location"] = authorities
    if settings.schema_registry_username:
        password = password_in(settings.schema_registry_password_file)
        asked["basic.auth.user.info"] = f"{settings.schema_registry_username}:{password}"
    made: Client = SchemaRegistryClient(asked)
    return made


def _ids(client: Client, settings: SchemaRegistry) -> dict[int, int]:
    """The registry's id -> the package's id of each schema that it has; the current one is among them."""
    from confluent_kafka.schema_registry import Schema  # noqa: PLC0415 - see above

    url, found = settings.schema_registry_url, {}
    for name, own in schema.names().items():
        text = json.dumps(json.loads(schema.texts()[own]), separators=(",", ":"))
        asked = Schema(text, "AVRO")
        try:
            number = client.lookup_schema(SUBJECT, asked).schema_id
        except Exception as error:
            if _status(error) != _NOT_FOUND:
                raise _unavailable(url, error) from None
            number = None
        if number is None and own != schema.CURRENT_ID:
            continue
        if number is None and not settings.schema_registry_register:
            raise RegistryUnavailable(
                f"the schema registry at {url} has no schema {name} under subject {SUBJECT}: register"
                " it there, or set SCHEMA_REGISTRY_REGISTER=true"
            )
        if number is None:
            try:
                number = client.register_schema(SUBJECT, asked)
            except Exception as error:
                raise _unavailable(url, error) from None
        if type(number) is not int or not 0 < number <= MOST:
            raise RegistryUnavailable(
                f"the schema registry at {url} gave {name} the id {number!r:.50};"
                f" 1 to {MOST} is accepted"
            )
        found[number] = own
    return found


def _status(error: Exception) -> int | None:
    """The HTTP status behind an error of the client; None without an answer."""
    return getattr(error, "http_status_code", None)


def _unavailable(url: str, error: Exception) -> RegistryUnavailable:
    """Whatever the client raised, which depends on the HTTP library below it, in a sentence."""
    status = _status(error)
    if status is None:
        return RegistryUnavailable(f"no schema registry answers at {url}: {error!r:.200}")
    user = "; SCHEMA_REGISTRY_USERNAME names the user" if status in (401, 403) else ""
    return RegistryUnavailable(
        f"the schema registry at {url} refused, HTTP {status}:"
        f" {getattr(error, 'error_message', '')!s:.300}{user}"
    )
