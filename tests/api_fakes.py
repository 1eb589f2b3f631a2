"""The API without servers: a reader that holds twins in memory, and a log whose owner answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

from tests.fake_clock import FakeClock
from twin.api.app import create_app
from twin.api.reader import Document, Entry, StoreUnavailable
from twin.api.readiness import Readiness
from twin.api.request_log import LogUnavailable
from twin.api.requests import Requests
from twin.api.services import Services
from twin.wire.records import Reply, Request

Owner = Callable[[Request], dict[str, Any] | None]
"""Decides: parts of a Reply (status, body, ..), or None for silence."""


def twin(vehicle_id: str = "car-1", **parts: Any) -> dict[str, Any]:
    """A twin document with every required part."""
    return {
        "vehicle_id": vehicle_id,
        "revision": 7,
        "created_at": 1,
        "updated_at": 2,
        "attributes": {"fleet": "berlin", "model": "m1", "firmware": "2000"},
        "reported": {"coolant_temp": {"v": 91.5, "t": 1, "n": 1, "s": 1, "o": 1}},
        "config": {},
        "desired": {"version": 3, "properties": {"a": 1}, "status": {}},
        "delta": {"a": 1},
        "presence": {"state": "online", "since": 1, "session": 1, "shard": 0, "reason": "birth"},
        "health": {"state": "normal", "since": 1, "models": {}},
        "commands": {"open": []},
        "applied": {},
        **parts,
    }


def index_of(document: dict[str, Any]) -> dict[str, Any]:
    """Indexed values, as the view writes them."""
    attributes = document["attributes"]
    return {
        "presence": document["presence"]["state"],
        "health": document["health"]["state"],
        **{name: attributes.get(name, "") for name in ("fleet", "model", "firmware")},
        **{name: entry["v"] for name, entry in document["reported"].items()},
    }


class FakeReader:
    """The methods of `Reader` over a dict; `away` makes every one of them fail."""

    def __init__(self, *twins: dict[str, Any]) -> None:
        self.twins = {document["vehicle_id"]: document for document in twins}
        self.stored: dict[str, Reply] = {}
        self.ledger: dict[str, dict[str, Any]] = {}
        self.away = False
        self.broken = False
        self.failed = asyncio.Event()
        """Set when a read met `away`."""

    def _check(self) -> None:
        if self.broken:
            raise RuntimeError("secret internals")
        if self.away:
            self.failed.set()
            raise StoreUnavailable("Redis does not answer: refused")

    async def ping(self) -> None:
        self._check()

    async def twin(self, vehicle_id: str) -> Document | None:
        self._check()
        document = self.twins.get(vehicle_id)
        return document and Document(document["revision"], orjson.dumps(document))

    async def revision(self, vehicle_id: str) -> int | None:
        document = await self.twin(vehicle_id)
        return document.revision if document else None

    async def ids(self, after: str | None, count: int, *, descending: bool) -> list[str]:
        self._check()
        ids = sorted(self.twins, reverse=descending)
        if after is not None:
            ids = [one for one in ids if (one < after if descending else one > after)]
        return ids[:count]

    async def indexes(self, ids: Sequence[str]) -> list[Entry]:
        return [Entry(one, index_of(self.twins[one])) for one in ids if one in self.twins]

    async def documents(self, ids: Sequence[str]) -> list[bytes]:
        return [orjson.dumps(self.twins[one]) for one in ids if one in self.twins]

    async def alarms(self, count: int | None = None) -> list[tuple[str, int]]:
        found = [
            (one, document["health"]["since"])
            for one, document in self.twins.items()
            if document["health"]["state"] == "alarm"
        ]
        return sorted(found, key=lambda alarm: -alarm[1])[:count]

    async def command(self, command_id: str) -> bytes | None:
        self._check()
        entry = self.ledger.get(command_id)
        return entry and orjson.dumps(entry)

    async def replies(self, request_ids: Sequence[str]) -> list[Reply]:
        self._check()
        return [self.stored[one] for one in request_ids if one in self.stored]

    async def hints(self) -> AsyncIterator[str]:
        await asyncio.Event().wait()
        yield ""


class FakeLog:
    """Keeps the requests; `owner` decides each one at once, unless Kafka is `away`."""

    def __init__(self, reader: FakeReader, owner: Owner) -> None:
        self.requests: list[Request] = []
        self.traces: list[str | None] = []
        self.away = False
        self._reader = reader
        self._owner = owner

    def append(
        self,
        request: Request,
        traceparent: str | None,
        on_lost: Callable[[LogUnavailable], None],
    ) -> None:
        if self.away:
            loop = asyncio.get_running_loop()
            loop.call_soon(on_lost, LogUnavailable("Kafka did not take the request: timed out"))
            return
        self.requests.append(request)
        self.traces.append(traceparent)
        decision = self._owner(request)
        if decision is not None:
            self._reader.stored[request["request_id"]] = Reply(
                request_id=request["request_id"],
                vehicle_id=request["vehicle_id"],
                revision=8,
                body_hash=request["body_hash"],
                **{"body": {}, **decision},
            )


def accept(request: Request) -> dict[str, Any]:
    """An owner that says yes to everything, with the shapes of the real one."""
    kind, body = request["kind"], request["body"]
    if kind == "delete":
        return {"status": 204}
    if kind == "command":
        return {"status": 201, "body": {**body, "state": "queued"}}
    if kind == "desired":
        return {"status": 200, "body": {"version": 4, "properties": body["value"], "delta": {}}}
    return {"status": 200, "body": body}


class Fakes:
    """Reader, log and requests wired as in the process, with a short wait."""

    def __init__(self, *twins: dict[str, Any], owner: Owner = accept, wait_s: float = 5) -> None:
        self.clock = FakeClock()
        self.reader = FakeReader(*twins)
        self.log = FakeLog(self.reader, owner)
        self.wait_s = wait_s
        self.requests = self._requests()
        self._used = False

    def _requests(self) -> Requests:
        return Requests(self.reader, self.log, self.clock, self.wait_s)  # type: ignore[arg-type]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Services]:
        """The services of an application."""
        if self._used:
            self.requests = self._requests()  # the last one belongs to another event loop
        self._used = True
        readiness = Readiness()
        await readiness.check(self.reader, lambda: None)  # type: ignore[arg-type]
        self.poll = asyncio.create_task(self.requests.poll(), name="replies-poll")
        try:
            yield Services(
                self.reader,  # type: ignore[arg-type]
                self.requests,
                readiness,
                self.clock,
                self.wait_s,
                (self.poll,),
            )
        finally:
            self.poll.cancel()
            with suppress(asyncio.CancelledError):
                await self.poll

    @asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client of an application over these fakes."""
        # One application for all: the framework builds its routes at the first request, slowly.
        app = _app()
        transport = httpx.ASGITransport(app)
        async with (
            self.open() as app.state.services,
            httpx.AsyncClient(transport=transport, base_url="http://api") as client,
        ):
            yield client


@cache
def _app() -> FastAPI:
    return create_app(Fakes().open)


def exchange(fakes: Fakes, method: str, path: str, **how: Any) -> httpx.Response:
    """One request to an application over `fakes`."""

    async def run() -> httpx.Response:
        async with fakes.client() as client:
            return await client.request(method, path, **how)

    return asyncio.run(run())
