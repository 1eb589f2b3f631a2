"""The API's reader on a real Redis, filled by the worker's own view."""

import asyncio
import math
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import orjson
import pytest
import redis.asyncio as redis

from tests.redis_view import command as made_command
from tests.redis_view import document, twin
from twin.api import filters, listing, order
from twin.api.order import Place
from twin.api.reader import Ranked, Reader, StoreUnavailable
from twin.packed import pack
from twin.view import Shown, View
from twin.wire import ids, keys

pytestmark = pytest.mark.integration


class Worker:
    """The view of an owner of everything."""

    def __init__(self, url: str) -> None:
        self._view = View(url, 1)

    async def write(
        self, *twins: Any, deleted: Sequence[str] = (), commands: Sequence[Any] = ()
    ) -> None:
        rows = {one["vehicle_id"]: pack(one).row(one["vehicle_id"]) for one in twins}
        await self._view.write(Shown({0: 1}, {0: rows}, {0: set(deleted)}, commands))

    async def reply(self, reply: Any) -> None:
        await self._view.write(Shown({0: 1}, replies=[reply]))

    async def __aenter__(self) -> "Worker":
        await self._view.claim(0, 1, {}, {})
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._view.close()


def with_view(redis_url: str, scenario: Callable[[Reader, Worker, Any], Awaitable[Any]]) -> Any:
    """Outcome of `scenario` with reader and writer of an own, empty database of the shared Redis."""
    url = f"{redis_url.rpartition('/')[0]}/9"

    async def run() -> Any:
        plain = redis.from_url(url)
        await plain.flushdb()
        reader = Reader(url)
        try:
            async with Worker(url) as worker:
                return await scenario(reader, worker, plain)
        finally:
            await reader.close()
            await plain.flushdb()
            await plain.aclose()

    return asyncio.run(run())


def command(vehicle_id: str, at: int) -> Any:
    """A ledger entry of that time."""
    return made_command(vehicle_id, ids.command_id(vehicle_id, at, "seed")[-26:], at)


def test_document_is_read_as_written(redis_url: str) -> None:
    """A twin comes back with its revision; one that is not there is None."""
    written = twin("car-1", 7, model='a,b"', signals={"speed": 1.5})

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        await worker.write(written)
        assert await reader.twin("car-1") == (7, document(written))
        assert await reader.revision("car-1") == 7
        assert await reader.documents(["car-1", "car-2"]) == [document(written), None]
        assert await reader.twin("car-2") is None
        assert await reader.revision("car-2") is None

    with_view(redis_url, scenario)


def test_counts_follow_what_is_written_and_deleted(redis_url: str) -> None:
    """Fleet counts move with each write, and a deleted twin leaves nothing behind."""

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        await worker.write(twin("a"), twin("b"), twin("c"))
        await worker.write(twin("b", 8, health="alarm", since=5))
        await worker.write(deleted=["c"])
        total, counts = await reader.counts(100)
        assert total == await reader.total() == 2
        assert counts["health"] == {"alarm": 1, "normal": 1}
        assert counts["presence"] == {"online": 2}
        assert counts["fleet"] == {"berlin": 2}
        assert await reader.alarms(9) == [("b", 5)]

    with_view(redis_url, scenario)


def test_only_the_most_frequent_values_are_counted_out(redis_url: str) -> None:
    """Attributes may have a value for each car: the answer stays short, and in the order of values."""

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        twins = [twin(f"{fleet}-{n}", fleet=fleet) for fleet in "abcd" for n in range(ord(fleet))]
        await worker.write(*twins)
        _, counts = await reader.counts(2)
        assert list(counts["fleet"].items()) == [("c", 99), ("d", 100)]

    with_view(redis_url, scenario)


def test_percentiles_are_the_ranks_of_the_signal(redis_url: str) -> None:
    """Nearest rank over the twins that have it; a signal that nobody has is without percentiles."""

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        await worker.write(
            *(twin(f"c{n}", signals={"coolant_temp": n}) for n in range(1, 41)),
            twin("electric", signals={"battery_percentage": 0.5}),
        )
        found = await reader.percentiles(
            ["coolant_temp", "speed", "battery_percentage"], [5, 50, 99]
        )
        assert found == {
            "coolant_temp": (40, [2, 20, 40]),
            "speed": (0, []),
            "battery_percentage": (1, [0.5, 0.5, 0.5]),
        }

    with_view(redis_url, scenario)


def test_alarms_come_newest_first(redis_url: str) -> None:
    """The newest alarms are the first, and no more than asked for."""

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        await worker.write(*(twin(v, health="alarm", since=n) for n, v in enumerate("abc", 1)))
        assert await reader.alarms(2) == [("c", 3), ("b", 2)]

    with_view(redis_url, scenario)


FILTERS = [
    "",
    "health eq alarm",
    "health eq alarm and fleet eq b",
    "presence eq online and coolant_temp gt 50",
    "coolant_temp ge 47.5 and coolant_temp lt 60",
    "speed eq 0 and fleet ne a",
    "open_commands gt 0",
    "last_seen lt 1000100 and model eq m2",
    "fleet eq nowhere",
]
SORTS = ["vehicle_id", "-vehicle_id", "-coolant_temp", "speed", "fleet", "-open_commands"]


@pytest.fixture(scope="module")
def crowd(redis_url: str) -> Iterator[tuple[str, list[Any]]]:
    """URL of a view of 4,100 twins: more than one set is read whole, ties, absent signals, lag."""
    url = f"{redis_url.rpartition('/')[0]}/8"
    names = [f"{'cC._-'[n % 5]}ar-{n:04}" for n in range(4100)]

    def one(n: int, name: str, more: float) -> Any:
        signals = {"coolant_temp": n % 100 + more, "speed": 0.0 if n % 3 else n % 40}
        if n % 7 == 0:
            del signals["coolant_temp"]
        return twin(
            name,
            1 + (more > 0),
            fleet="abc"[n % 3],
            model=f"m{n % 4}",
            presence="online" if n % 9 else "offline",
            health="alarm" if n % 50 == 0 else "normal",
            seen=1_000_000 + n + 9 * (more > 0),
            open=int(n % 60 == 0),
            signals=signals,
        )

    newest = [one(n, name, 0.3 * (n % 2)) for n, name in enumerate(names)]

    async def empty() -> None:
        async with redis.from_url(url) as plain:
            await plain.flushdb()

    async def fill() -> None:
        await empty()
        async with Worker(url) as worker:
            await worker.write(*(one(n, name, 0) for n, name in enumerate(names)))
            # Less than the index follows: filters must not go by it alone.
            await worker.write(*newest)

    asyncio.run(fill())
    yield url, newest
    asyncio.run(empty())


@pytest.mark.parametrize("sort", SORTS)
@pytest.mark.parametrize("text", FILTERS)
def test_pages_visit_every_match_once(crowd: Any, text: str, sort: str) -> None:
    """Whatever index finds them: exactly the twins whose documents fulfil the filter, sorted."""
    url, twins = crowd
    conditions = filters.parse(text) if text else ()
    by = order.parse(sort)
    index = {one["vehicle_id"]: keys.index_of(one) for one in twins}

    async def run() -> list[str]:
        reader = Reader(url)
        seen = []
        place, more = None, True
        while more:
            page = await listing.select(reader, conditions, by, place, 200)
            seen += [orjson.loads(body)["vehicle_id"] for body in page.documents]
            place, more = page.next, page.next is not None
        await reader.close()
        return seen

    seen = asyncio.run(run())
    wanted = [v for v, values in index.items() if all(c.holds(values) for c in conditions)]
    assert sorted(seen) == sorted(wanted)
    if by.field == "vehicle_id" or by.textual:
        places = [Place(index[v][by.field] if by.textual else None, v) for v in wanted]
        assert seen == [place.vehicle_id for place in by.arranged(places)]
        return
    numbers = [index[v].get(by.field) for v in seen]
    having = [n for n in numbers if n is not None]
    lag = 2 * keys.LAG[by.field]
    if by.descending:
        having = [-n for n in having]
    assert all(high >= low - lag for low, high in pairwise(having))
    assert numbers[len(having) :] == [None] * (len(numbers) - len(having))


def test_ranks_go_on_behind_a_twin_that_is_gone(redis_url: str) -> None:
    """Among thousands of equal numbers, ids in the order of their bytes, both ways."""
    names = [f"{letter}{n:02}" for letter in "aBc.Z_-" for n in range(60)]

    async def scenario(reader: Reader, worker: Worker, plain: Any) -> None:
        await worker.write(*(twin(name, signals={"speed": 0}) for name in names))
        await worker.write(twin("slow", signals={"speed": 1}), deleted=["B30"])
        ordered = sorted({*names} - {"B30"})
        for descending in (False, True):
            behind = [v for v in ordered if (v < "B30" if descending else v > "B30")]
            if descending:
                behind.reverse()
            found = await reader.ranked(
                "speed", -1, 0, Ranked(0.0, "B30"), 500, descending=descending
            )
            assert [one.vehicle_id for one in found] == behind
        first = await reader.ranked("speed", -math.inf, math.inf, None, 2, descending=True)
        assert first == [(1.0, "slow"), (0.0, ordered[-1])]
        assert await reader.ranked("speed", 2, 3, None, 5, descending=False) == []

    with_view(redis_url, scenario)


def test_commands_of_a_vehicle_are_paged_newest_first(redis_url: str) -> None:
    """Pages of a ledger follow each other, and an entry that is away is left out."""
    entries = [command("car-1", 1000 + n) for n in range(5)]

    async def scenario(reader: Reader, worker: Worker, plain: Any) -> list[list[str]]:
        await worker.write(commands=entries)
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

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        old, new = command("car-1", 1), command("car-2", 2)
        await worker.write(commands=[old, new])
        await worker.write(commands=[{**old, "state": "sent", "updated_at": 3}])
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

    async def scenario(reader: Reader, worker: Worker, _plain: Any) -> None:
        hints = aiter(reader.hints())
        assert await asyncio.wait_for(anext(hints), 10) is None  # from now on it listens
        await worker.reply(reply)
        assert await asyncio.wait_for(anext(hints), 10) == "r1"
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
            reads = [reader.ping(), reader.twin("a"), reader.counts(9), anext(reader.hints())]
            for read in reads:
                with pytest.raises(StoreUnavailable, match="Redis does not answer"):
                    await asyncio.wait_for(read, 20)
            await reader.close()

        asyncio.run(scenario())
