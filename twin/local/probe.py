"""Is a part ready? Each probe asks the part itself and returns None, or why it is not ready yet."""

import http.client
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final
from urllib.parse import urlsplit

import redis
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from twin.client import access
from twin.kit.kafka import admin
from twin.kit.mqtt_address import Broker
from twin.local import mqtt_frame
from twin.local.errors import Died, Interrupted, LocalError, NotReady
from twin.local.process import Child, tail

Probe = Callable[[], str | None]

_TRY_S: Final = 2.0
_PAUSE_S: Final = 0.05
_REFUSALS: Final = {
    1: "protocol version refused",
    2: "client id refused",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorised",
}


def wait_ready(
    name: str,
    probe: Probe,
    deadline_s: float,
    *,
    child: Child | None = None,
    watched: Sequence[Child] = (),
    interrupted: Callable[[], bool] = lambda: False,
) -> None:
    """Ask `probe` until it is content.

    `child` is the process asked, None if it is not ours. Raises `NotReady` after the deadline,
    `Died` as soon as one of `watched` has ended, `Interrupted`.
    """
    end = time.monotonic() + deadline_s
    while (reason := probe()) is not None:
        for process in watched:
            if process.exit_code() is not None:
                raise Died(process.obituary())
        if interrupted():
            raise Interrupted(f"Stopped while waiting for {name}.")
        if time.monotonic() > end:
            log = f"; its log {child.log} ends:\n{tail(child.log)}" if child else "."
            raise NotReady(f"{name} was not ready within {deadline_s:g} s: {reason}{log}")
        time.sleep(_PAUSE_S)


def kafka(bootstrap: str) -> Probe:
    """Kafka answers a metadata request and names at least one broker."""
    client: AdminClient | None = None

    def probe() -> str | None:
        nonlocal client
        if client is None:
            # A client made before the socket is open would sit out its reconnect back-off.
            refused = _first_refusal(bootstrap)
            if refused is not None:
                return refused
            client = admin(bootstrap)
        try:
            brokers = client.list_topics(timeout=_TRY_S).brokers
        except KafkaException as error:
            return f"{bootstrap}: {error.args[0].str()}"
        return None if brokers else f"{bootstrap}: no broker has registered yet"

    return probe


def redis_server(url: str) -> Probe:
    """Redis answers PING."""

    def probe() -> str | None:
        try:
            with redis.Redis.from_url(
                url, socket_timeout=_TRY_S, socket_connect_timeout=_TRY_S
            ) as client:
                client.ping()
        except (redis.RedisError, OSError, ValueError) as error:
            return f"{url_without_password(url)}: {error}"
        return None

    return probe


def mqtt(url: str, secured: ssl.SSLContext | None = None) -> Probe:
    """An MQTT broker accepts a CONNECT (MQTT 3.1.1, clean session); `secured` for mqtts://."""
    host, port, tls = mqtt_address(url)

    def probe() -> str | None:
        try:
            with socket.create_connection((host, port), timeout=_TRY_S) as connection:
                if not tls or secured is None:
                    answer = _connack(connection)
                else:
                    with secured.wrap_socket(connection, server_hostname=host) as wrapped:
                        answer = _connack(wrapped)
        except OSError as error:
            return f"{host}:{port}: {error}"
        if len(answer) < 4 or answer[0] != mqtt_frame.CONNACK:
            return f"{host}:{port}: no CONNACK but {answer.hex() or 'the end of the connection'}"
        if answer[3]:
            return f"{host}:{port}: {_REFUSALS.get(answer[3], f'refused with code {answer[3]}')}"
        return None

    return probe


def http_ready(url: str) -> Probe:
    """`GET url`/readyz answers 200."""
    parts = urlsplit(url)

    def probe() -> str | None:
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port or 80, timeout=_TRY_S
        )
        try:
            connection.request("GET", "/readyz")
            response = connection.getresponse()
            body = response.read(300).decode(errors="replace").strip()
        except (OSError, http.client.HTTPException) as error:
            return f"{url}/readyz: {error}"
        finally:
            connection.close()
        return None if response.status == 200 else f"{url}/readyz: {response.status} {body}"

    return probe


def url_without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    if parts.password is None:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def check_redis_url(url: str) -> None:
    """Raise `LocalError` when `url` names no Redis."""
    try:
        redis.Redis.from_url(url).close()
    except ValueError:
        raise LocalError(
            f"REDIS_URL {url_without_password(url)!r} is not accepted: redis://host:port/db."
        ) from None


def mqtt_address(url: str) -> Broker:
    """The broker at mqtt://host:port or mqtts://..; raises `LocalError` for anything else."""
    try:
        return access.broker(url)
    except ValueError as error:
        raise LocalError(f"{error}.") from None


def mqtt_secured(url: str, environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """What `mqtt` needs for mqtts://, by the settings of uplink and downlink. Raises `LocalError`."""
    if not mqtt_address(url).tls:
        return None
    files = (environ.get(f"MQTT_{name}_FILE", "") for name in ("CA", "CERT", "KEY"))
    try:
        return access.context(*files)
    except ValueError as error:
        raise LocalError(f"MQTT_CA_FILE, MQTT_CERT_FILE, MQTT_KEY_FILE: {error}.") from None


def _first_refusal(bootstrap: str) -> str | None:
    """None when one of the addresses accepts a connection, else why the first does not."""
    first = None
    for address in bootstrap.split(","):
        host, _, port = address.strip().rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_TRY_S).close()
        except (OSError, ValueError) as error:
            first = first or f"{address.strip()}: {error}"
        else:
            return None
    return first


def _connack(connection: socket.socket) -> bytes:
    connection.sendall(mqtt_frame.connect())
    answer = b""
    while len(answer) < 4 and (chunk := connection.recv(4 - len(answer))):
        answer += chunk
    connection.sendall(mqtt_frame.frame(mqtt_frame.DISCONNECT))
    return answer
