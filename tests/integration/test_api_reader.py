"""The API's reader on a real Redis, filled by the worker's own view."""

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
import redis.asyncio as redis

from tests.api_fakes import twin
from twin.api import filters, listing
from twin.api.reader import Reader, StoreUnavailable
from twin.view import View
from twin.wire import ids, keys

pytestmark = pytest.mark.integration

ALARM = {"state": "alarm", "models": {}}


@asynccontextmanager
async def empty_view(redis_url: str, number: int) -> AsyncIterator[tuple[Reader, View, Any]]:
    """Reader and writer of an own, empty database of the shared Redis."""
    url = f"{redis_url.rpartition('/')[0]}/{number}"
    plain = redis.from_url(url)
    await plain.flushdb()
    reader, view = Reader(url), View(url)
    try:
        yield reader, view, plain
    finally:
        await reader.close()
        await view.close()
        await plain.flushdb()
        await plain.aclose()


def with_view(redis_url: str, scenario: Callable[[Reader, View, Any], Awaitable[Any]]) -> Any:
    """Outcome of `scenario` on an empty view."""

    async def run() -> Any:
        async with empty_view(redis_url, 9) as (reader, view, plain):
            return await scenario(reader, view, plain)

    return asyncio.run(run())


def command(vehicle_id: str, at: int, **parts: Any) -> Any:
    """A ledger entry."""
    return {
        "id": ids.command_id(vehicle_id, at, "seed"),
        "vehicle_id": vehicle_id,
        "name": "ping",
        "args": {},
        "lane": "default",
        "state": "queued",
        "issued_at": at,
        "expires_at": at + 1000,
        "updated_at": at,
        "by": "api",
        "history": [],
        "attempts": [],
        **parts,
    }


def test_document_is_read_as_written(redis_url: str) -> None:
    """A twin comes back with its revision; one that is not there is None."""

    async def scenario(reader: Reader, view: View, _plain: Any) -> None:
        await view.write({"car-1": twin("car-1")})
        found = await reader.twin("car-1")
        assert found is not None
        assert (found.revision, orjson.loads(found.body)) == (7, twin("car-1"))
        assert await reader.revision("car-1") == 7
        assert await reader.twin("car-2") is None
        assert await reader.revision("car-2") is None

    with_view(redis_url, scenario)


def test_counts_follow_what_is_written_and_deleted(redis_url: str) -> None:
    """Fleet counts move with each write, and a deleted twin leaves nothing behind."""

    async def scenario(reader: Reader, view: View, _plain: Any) -> None:
        twins = {name: twin(name) for name in ("a", "b", "c")}
        await view.write(twins)
        await view.write({"b": twin("b", revision=8, health={**ALARM, "since": 5})})
        await view.write({"c": None}, deleted=["c"])
        total, counts = await reader.counts()
        assert total == 2
        assert counts["health"] == {"alarm": 1, "normal": 1}
        assert counts["presence"] == {"online": 2}
        assert counts["fleet"] == {"berlin": 2}
        assert await reader.alarms() == [("b", 5)]

    with_view(redis_url, scenario)


def test_alarms_come_newest_first(redis_url: str) -> None:
    """The newest alarms are the first, and no more than asked for."""

    async def scenario(reader: Reader, view: View, _plain: Any) -> None:
        await view.write(
            {name: twin(name, health={**ALARM, "since": n}) for n, name in enumerate("abc", 1)}
        )
        assert await reader.alarms(2) == [("c", 3), ("b", 2)]

    with_view(redis_url, scenario)


@pytest.mark.parametrize("text", ["", "coolant_temp gt 50", "health eq alarm"])
@pytest.mark.parametrize("descending", [False, True])
def test_pages_visit_every_match_once(redis_url: str, text: str, descending: bool) -> None:
    """Paging over real sorted sets gives each matching id once, in the asked order."""
    names = [f"car-{n:04}" for n in range(2300)]
    hot = {name for n, name in enumerate(names) if n % 3 == 0}

    def one(name: str) -> Any:
        reported = {
            "coolant_temp": {"v": 99.0 if name in hot else 5.0, "t": 1, "n": 1, "s": 1, "o": 1}
        }
        health = {**ALARM, "since": 1} if name in hot else {**ALARM, "state": "normal", "since": 1}
        return twin(name, reported=reported, health=health)

    async def scenario(reader: Reader, view: View, _plain: Any) -> list[str]:
        await view.write({name: one(name) for name in names})
        conditions = filters.parse(text) if text else ()
        seen: list[str] = []
        after, more = None, True
        while more:
            page, more = await listing.select(
                reader, conditions, after=after, descending=descending, limit=200
            )
            seen += page
            after = page[-1]
        return seen

    expected = sorted(hot if text else names, reverse=descending)
    assert with_view(redis_url, scenario) == expected


def test_commands_of_a_vehicle_are_paged_newest_first(redis_url: str) -> None:
    """Pages of a ledger follow each other, and an entry that is away is left out."""
    entries = [command("car-1", 1000 + n) for n in range(5)]

    async def scenario(reader: Reader, view: View, plain: Any) -> list[list[str]]:
        await view.write({}, entries)
        await plain.delete(keys.command(entries[1]["id"]))
        pages = []
        after = None
        while True:
            found, after = await reader.commands_of("car-1", after, 2)
            pages.append([orjson.loads(entry)["id"] for entry in found])
            if after is None:
                return pages

    newest = [entry["id"] for entry in reversed(entries)]
    assert with_view(redis_url, scenario) == [newest[:2], newest[2:3], newest[4:]]


def test_latest_commands_go_by_their_last_change(redis_url: str) -> None:
    """The command that changed last is the first, whatever vehicle it is of."""

    async def scenario(reader: Reader, view: View, _plain: Any) -> None:
        old, new = command("car-1", 1), command("car-2", 2)
        await view.write({}, [old, new])
        await view.write({}, [{**old, "state": "sent", "updated_at": 3}])
        found = [orjson.loads(entry) for entry in await reader.recent_commands(5)]
        assert [(entry["vehicle_id"], entry["state"]) for entry in found] == [
            ("car-1", "sent"),
            ("car-2", "queued"),
        ]
        assert len(await reader.recent_commands(1)) == 1
        assert orjson.loads(await reader.command(old["id"]) or b"")["state"] == "sent"
        assert await reader.command("car-9." + old["id"][-26:]) is None

    with_view(redis_url, scenario)


def test_hint_arrives_when_a_reply_is_stored(redis_url: str) -> None:
    """Who listens hears the request id, and finds the reply already there."""
    reply: Any = {
        "request_id": "r1",
        "vehicle_id": "car-1",
        "status": 200,
        "body": {},
        "revision": 1,
    }

    async def scenario(reader: Reader, view: View, plain: Any) -> None:
        hints = aiter(reader.hints())
        heard = asyncio.ensure_future(anext(hints))
        while not dict(await plain.pubsub_numsub(keys.REPLIES))[keys.REPLIES.encode()]:
            assert not heard.done(), heard
            await asyncio.sleep(0.01)
        await view.write({}, replies=[reply])
        assert await asyncio.wait_for(heard, 10) == "r1"
        assert await reader.replies(["r0", "r1"]) == [reply]
        assert await reader.replies([]) == []

    with_view(redis_url, scenario)


def test_redis_that_is_away_is_named_soon() -> None:
    """Without a Redis every read raises our error, and does not hang."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        async def scenario() -> None:
            reader = Reader(f"redis://127.0.0.1:{port}/0")
            reads = [reader.ping(), reader.twin("a"), reader.counts(), anext(reader.hints())]
            for read in reads:
                with pytest.raises(StoreUnavailable, match="Redis does not answer"):
                    await asyncio.wait_for(read, 20)
            await reader.close()

        asyncio.run(scenario())
