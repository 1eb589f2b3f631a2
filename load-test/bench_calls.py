"""Clients of the API at a steady rate, over all its replicas: one process, so that they cost nobody else.

Calls come as those of many people do, at random times of a fixed mean (Poisson), whatever the answers
take; a latency counts from when a call was due, so a stall is seen by all the calls that it held up.

What every write was told is kept, for it must all be true in the end (`bench_api.judge`). Some of it
must be true at once, and what is not is a `fault` here: a version is given to one PATCH only, a
conditional PATCH is accepted at the version that it names, a 412 tells a later one, a repeated
Idempotency-Key gives the same command, and a read with a token shows the write. Two calls on one car
go through different replicas.

aiohttp, which comes with Faust, takes 0.25 ms of CPU a call where httpx takes 1 to 2: on the machine that
it measures.
"""

import argparse
import asyncio
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import orjson

from bench_records import vehicle_id

CALLS_PER_S: Final = 80
MIX: Final = {
    "patch": 10,
    "patch_if_match": 15,
    "post_command": 10,
    "post_command_again": 5,
    "put_attributes": 10,
    "get_twin": 15,
    "get_twin_if_changed": 10,
    "get_own_write": 10,
    "list_twins": 15,
}
"""Kinds of calls and their parts of a hundred."""
DECIDED: Final = ("patch", "patch_if_match", "post_command", "put_attributes")
"""Kinds that the twin's owner decides."""
TIMEOUT_S: Final = 15.0
_CONNECTIONS: Final = 200
_REMEMBERED: Final = 50
_LIST: Final = "/v1/twins?filter=fleet%20eq%20bench%20and%20speed%20gt%205&limit=25"


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Its body."""
        return orjson.loads(self.body)


@dataclass(slots=True)
class Car:
    """What clients know of a car that they write to."""

    version: int = 0
    """The latest of desired that somebody was told."""
    token: tuple[int, str, int] | None = None
    """Replica, token and version of the last accepted PATCH."""
    twin_etag: str = '"r0"'
    turn: int = 0
    accepted: int = 0
    unanswered: int = 0
    versions: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Tally:
    """What was answered; between the processes as JSON."""

    samples: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    """Kind -> latency in ms and status (0: no answer) of the calls due after the warm-up."""
    cars: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Vehicle -> PATCHes accepted, PATCHes of which nobody knows."""
    commands: dict[str, str] = field(default_factory=dict)
    """Command id -> vehicle."""
    unanswered: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)


class Clients:
    """Calls on `cars` cars through all of `urls`."""

    def __init__(self, urls: list[str], cars: int) -> None:
        self.tally = Tally()
        self._replicas = [
            aiohttp.ClientSession(
                url,
                connector=aiohttp.TCPConnector(limit=_CONNECTIONS),
                timeout=aiohttp.ClientTimeout(TIMEOUT_S),
            )
            for url in urls
        ]
        self._cars = {vehicle_id(number): Car() for number in range(cars)}
        self._random = random.Random(7)
        self._keyed: deque[tuple[int, str, str, dict[str, Any], str]] = deque(maxlen=_REMEMBERED)
        self._number = 0

    async def run(self, warm_s: float, seconds: float) -> None:
        """Call until `warm_s` and `seconds` are over, and wait for the last answer."""
        calls: set[asyncio.Task[None]] = set()
        begin = due = time.perf_counter()
        warm = begin + warm_s
        while due < warm + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            call = asyncio.create_task(self._call(due, measured=due >= warm))
            calls.add(call)
            call.add_done_callback(calls.discard)
            due += self._random.expovariate(CALLS_PER_S)
        await asyncio.gather(*calls)
        for replica in self._replicas:
            await replica.close()
        self.tally.cars = {name: (car.accepted, car.unanswered) for name, car in self._cars.items()}

    async def _call(self, due: float, *, measured: bool) -> None:
        (kind,) = self._random.choices(list(MIX), list(MIX.values()))
        name = self._random.choice(list(self._cars))
        car = self._cars[name]
        car.turn += 1
        try:
            status = await getattr(self, f"_{kind}")(car.turn % len(self._replicas), name, car)
        except (aiohttp.ClientError, TimeoutError) as error:
            self._fault(f"no answer: {type(error).__name__}")
            status = 0
        if status == 0 or status >= 500:
            self.tally.unanswered[kind] += 1
            if kind in ("patch", "patch_if_match"):
                car.unanswered += 1
        if measured:
            took = (time.perf_counter() - due) * 1000
            self.tally.samples[kind].append((round(took, 2), status))

    def _fault(self, what: str) -> None:
        self.tally.faults[what] += 1

    def _expect(self, answer: Answer, *statuses: int) -> int:
        if answer.status not in statuses and answer.status < 500:
            self._fault(f"a call answered {answer.status}: {answer.body[:120].decode()}")
        return answer.status

    async def _ask(
        self, replica: int, method: str, path: str, body: Any = None, **headers: str
    ) -> Answer:
        headers = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            headers.setdefault("Content-Type", "application/json")
        async with self._replicas[replica % len(self._replicas)].request(
            method,
            path,
            data=None if body is None else orjson.dumps(body),
            headers=headers,
        ) as answer:
            return Answer(answer.status, answer.headers, await answer.read())

    # --- one call of each kind; its status ------------------------------------------------------------

    async def _patch(self, replica: int, name: str, car: Car) -> int:
        return await self._change(replica, name, car)

    async def _patch_if_match(self, replica: int, name: str, car: Car) -> int:
        return await self._change(replica, name, car, car.version)

    async def _change(self, replica: int, name: str, car: Car, named: int | None = None) -> int:
        self._number += 1
        value = {"telemetry_interval_s": self._number, f"p{self._number % 5}": self._number}
        condition = {} if named is None else {"If_Match": f'"d{named}"'}
        answer = await self._ask(
            replica,
            "PATCH",
            f"/v1/twins/{name}/desired",
            value,
            Content_Type="application/merge-patch+json",
            **condition,
        )
        if answer.status == 200:
            version = answer.json()["version"]
            car.accepted += 1
            if version in car.versions:
                self._fault("a version was given to two PATCHes")
            if named is not None and version != named + 1:
                self._fault("a PATCH was accepted at another version than its If-Match")
            car.versions.add(version)
            if version > car.version:
                car.version = version
                car.token = (replica, answer.headers["Cartwin-Token"], version)
            return 200
        if answer.status == 412 and named is not None:
            current = answer.json()["version"]
            if current <= named:
                self._fault("a 412 told no later version than the If-Match")
            car.version = max(car.version, current)
            return 412
        return self._expect(answer, 200)

    async def _post_command(self, replica: int, name: str, _car: Car) -> int:
        self._number += 1
        body = {"name": "ping", "args": {"n": self._number}, "ttl_s": 3600}
        key = f"bench-{self._number}"
        answer = await self._post(replica, name, key, body)
        if answer.status == 201:
            made = answer.json()["id"]
            self.tally.commands[made] = name
            self._keyed.append((replica, name, key, body, made))
        # A car that has all the commands it may have refuses one more, and that is an answer.
        return self._expect(answer, 201, 429)

    async def _post_command_again(self, replica: int, name: str, car: Car) -> int:
        if not self._keyed:
            return await self._post_command(replica, name, car)
        before, name, key, body, made = self._random.choice(self._keyed)
        answer = await self._post(before + 1, name, key, body)
        if answer.status < 300 and answer.json()["id"] != made:
            self._fault("a repeated Idempotency-Key gave another command")
        return self._expect(answer, 200, 201)

    async def _post(self, replica: int, name: str, key: str, body: dict[str, Any]) -> Answer:
        path = f"/v1/twins/{name}/commands"
        return await self._ask(replica, "POST", path, body, Idempotency_Key=key)

    async def _put_attributes(self, replica: int, name: str, _car: Car) -> int:
        self._number += 1
        value = {"fleet": "bench", "model": f"m{self._number % 3}", "firmware": "1"}
        path = f"/v1/twins/{name}/attributes"
        return self._expect(await self._ask(replica, "PUT", path, value), 200)

    async def _get_twin(self, replica: int, name: str, car: Car) -> int:
        answer = await self._ask(replica, "GET", f"/v1/twins/{name}")
        car.twin_etag = answer.headers.get("ETag", car.twin_etag)
        return self._expect(answer, 200)

    async def _get_twin_if_changed(self, replica: int, name: str, car: Car) -> int:
        answer = await self._ask(replica, "GET", f"/v1/twins/{name}", If_None_Match=car.twin_etag)
        return self._expect(answer, 200, 304)

    async def _get_own_write(self, replica: int, name: str, car: Car) -> int:
        if car.token is None:
            return await self._get_twin(replica, name, car)
        before, token, version = car.token
        path = f"/v1/twins/{name}/desired?after={token}"
        answer = await self._ask(before + 1, "GET", path)
        if answer.status == 200 and answer.json()["version"] < version:
            self._fault("a read with a token did not show the write")
        return self._expect(answer, 200)

    async def _list_twins(self, replica: int, _name: str, _car: Car) -> int:
        return self._expect(await self._ask(replica, "GET", _LIST), 200)


def main() -> None:
    """Call, then write the tally to a file."""
    parser = argparse.ArgumentParser(description="Clients of `cartwin bench api`.")
    parser.add_argument("--urls", required=True)
    parser.add_argument("--cars", type=int, required=True)
    parser.add_argument("--warm-s", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--tally", type=Path, required=True)
    told = parser.parse_args()

    async def run() -> Tally:
        clients = Clients(told.urls.split(","), told.cars)
        await clients.run(told.warm_s, told.seconds)
        return clients.tally

    told.tally.write_bytes(orjson.dumps(asyncio.run(run())))


if __name__ == "__main__":
    main()
