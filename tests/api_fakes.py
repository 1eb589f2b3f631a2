"""The API without servers: a reader that holds twins in memory, and a log whose owner answers."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import cache
from typing import Any

import httpx
import orjson
from fastapi import FastAPI

from tests.fake_clock import FakeClock
from tests.rejected_fakes import FakeRejected
from twin.api.app import create_app
from twin.api.reader import Document, Ranked, StoreUnavailable
from twin.api.readiness import Readiness
from twin.api.request_log import LogUnavailable
from twin.api.requests import Requests
from twin.api.selectors import Having, Selector
from twin.api.services import Services
from twin.wire import keys
from twin.wire.codec import MAX_MESSAGE_BYTES
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

    async def counts(self, most: int) -> tuple[int, dict[str, dict[str, int]]]:
        self._check()
        states = Counter(twin["presence"]["state"] for twin in self.twins.values())
        return len(self.twins), {"presence": dict(states.most_common(most))}

    async def twin(self, vehicle_id: str) -> Document | None:
        self._check()
        document = self.twins.get(vehicle_id)
        return document and Document(document["revision"], orjson.dumps(document))

    async def revision(self, vehicle_id: str) -> int | None:
        document = await self.twin(vehicle_id)
        return document.revision if document else None

    # The index: as the view keeps it, without its lag.

    def _index(self, vehicle_id: str) -> dict[str, Any]:
        return keys.index_of(self.twins[vehicle_id])  # type: ignore[arg-type]

    def _number(self, vehicle_id: str, field: str) -> float | None:
        number = self._index(vehicle_id).get(field) if vehicle_id in self.twins else None
        if number is None or (field == keys.OPEN_COMMANDS and number == 0):
            return None
        return float(number)

    async def total(self) -> int:
        return len(self.twins)

    async def ids(self, after: str | None, count: int, *, descending: bool) -> list[str]:
        self._check()
        ids = sorted(self.twins, reverse=descending)
        if after is not None:
            ids = [one for one in ids if (one < after if descending else one > after)]
        return ids[:count]

    async def members(self, selector: Selector) -> list[str]:
        self._check()
        field = selector.field
        if isinstance(selector, Having):
            return [one for one in self.twins if self._index(one)[field] == selector.value]
        return [one for one in self.twins if selector.fits(self._number(one, field))]

    async def sizes(self, selectors: Sequence[Selector]) -> list[int]:
        return [len(await self.members(selector)) for selector in selectors]

    async def among(self, selectors: Sequence[Selector], ids: Sequence[str]) -> list[str]:
        sets = [await self.members(selector) for selector in selectors]
        return [one for one in ids if all(one in some for some in sets)]

    async def ranked(
        self,
        field: str,
        low: float,
        high: float,
        after: Ranked | None,
        count: int,
        *,
        descending: bool,
    ) -> list[Ranked]:
        numbers = {one: self._number(one, field) for one in self.twins}
        found = [Ranked(n, v) for v, n in numbers.items() if n is not None and low <= n <= high]
        if after is not None:
            found = [one for one in found if (one < after if descending else one > after)]
        return sorted(found, reverse=descending)[:count]

    async def scores(self, field: str, ids: Sequence[str]) -> list[float | None]:
        return [self._number(one, field) for one in ids]

    async def texts(self, field: str, ids: Sequence[str]) -> list[str | None]:
        return [self._index(one)[field] if one in self.twins else None for one in ids]

    async def values(self, field: str) -> list[str]:
        return sorted({self._index(one)[field] for one in self.twins})

    async def documents(self, ids: Sequence[str]) -> list[bytes | None]:
        return [orjson.dumps(self.twins[one]) if one in self.twins else None for one in ids]

    async def command(self, command_id: str) -> bytes | None:
        self._check()
        entry = self.ledger.get(command_id)
        return entry and orjson.dumps(entry)

    async def replies(self, request_ids: Sequence[str]) -> list[Reply]:
        self._check()
        return [self.stored[one] for one in request_ids if one in self.stored]

    async def hints(self) -> AsyncIterator[str | None]:
        self._check()
        yield None
        await asyncio.Event().wait()


class FakeLog:
    """Keeps the requests; `owner` decides each one at once, unless Kafka is `away`."""

    def __init__(self, reader: FakeReader, owner: Owner) -> None:
        self.requests: list[Request] = []
        self.traces: list[str | None] = []
        self.away = False
        self._appended = asyncio.Semaphore(0)
        self._reader = reader
        self._owner = owner

    async def has(self, more: int) -> None:
        """Return when so many more requests are in the log."""
        for _ in range(more):
            await self._appended.acquire()

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
        self._appended.release()
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
        self.rejected = FakeRejected()
        self.wait_s = wait_s
        self.message_max_bytes = MAX_MESSAGE_BYTES
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
                self.message_max_bytes,
                self.rejected,  # type: ignore[arg-type]
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
