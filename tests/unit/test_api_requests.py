"""Asking the owner: waiting, time-outs, repetition and limits."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any
from unittest.mock import Mock

import pytest

from tests.api_fakes import Fakes, accept
from twin.api import requests
from twin.api.problems import Problem
from twin.api.reader import StoreUnavailable
from twin.api.request_log import LogUnavailable
from twin.api.requests import Wish


def run(fakes: Fakes, *coroutines: Coroutine[Any, Any, Any]) -> list[Any]:
    """Outcome of each coroutine while replies are being read."""

    async def all_of() -> list[Any]:
        async with fakes.open():
            return await asyncio.gather(*coroutines, return_exceptions=True)

    return asyncio.run(all_of())


def test_the_owners_word_is_the_answer() -> None:
    """What the owner replied under the request's id comes back to the one who asked."""
    fakes = Fakes(owner=lambda request: {"status": 200, "body": {"kind": request["kind"]}})
    (decision,) = run(fakes, fakes.requests.ask(Wish("delete", "car-1", {})))
    assert decision.reply["body"] == {"kind": "delete"}
    assert not decision.repeated


def test_request_carries_what_the_owner_needs() -> None:
    """Time, asker, condition, key and hash of the body are in the record."""
    fakes = Fakes()
    wish = Wish(
        "desired", "car-1", {"op": "put", "value": {}}, if_match=4, key="k", traceparent="t"
    )
    run(fakes, fakes.requests.ask(wish))
    (request,) = fakes.log.requests
    assert request == {
        "request_id": wish.request_id(),
        "kind": "desired",
        "vehicle_id": "car-1",
        "at": fakes.clock.now_ms(),
        "by": "api",
        "body": {"op": "put", "value": {}},
        "body_hash": wish.body_hash(),
        "if_match": 4,
        "idempotency_key": "k",
    }
    assert fakes.log.traces == ["t"]


def test_silence_is_504_with_the_request_id() -> None:
    """An owner that does not decide in time leads to a 504 that names the request."""
    fakes = Fakes(owner=lambda request: None, wait_s=0.1)
    (refused,) = run(fakes, fakes.requests.ask(Wish("delete", "car-1", {})))
    assert isinstance(refused, Problem)
    assert (refused.status, refused.code) == (504, "no_decision_yet")
    assert refused.members == {"request_id": fakes.log.requests[0]["request_id"]}


def test_same_key_finds_the_decision_made_after_the_time_out() -> None:
    """Asking again with the same key after a 504 returns the owner's one decision."""
    fakes = Fakes(owner=lambda request: None, wait_s=0.1)
    wish = Wish("command", "car-1", {"id": "car-1.A", "name": "ping"}, key="k")
    again = Wish("command", "car-1", {"id": "car-1.B", "name": "ping"}, key="k")

    async def scenario() -> Any:
        with pytest.raises(Problem):
            await fakes.requests.ask(wish)
        request = fakes.log.requests[0]
        fakes.reader.stored[request["request_id"]] = {
            "request_id": request["request_id"],
            "vehicle_id": "car-1",
            "revision": 8,
            "body_hash": request["body_hash"],
            **accept(request),
        }
        return await fakes.requests.ask(again)

    (decision,) = run(fakes, scenario())
    assert decision.repeated
    assert decision.reply["body"]["id"] == "car-1.A"
    assert len(fakes.log.requests) == 1


@pytest.mark.parametrize(
    "other",
    [
        Wish("desired", "car-1", {"op": "patch", "value": {"a": 2}}, key="k"),
        Wish("desired", "car-1", {"op": "put", "value": {"a": 1}}, key="k"),
        Wish("desired", "car-1", {"op": "patch", "value": {"a": 1}}, if_match=1, key="k"),
        Wish("delete", "car-1", {}, key="k"),
    ],
)
def test_same_key_for_another_request_is_409(other: Wish) -> None:
    """A key that was used for another body, call or condition is refused."""
    fakes = Fakes()
    first = Wish("desired", "car-1", {"op": "patch", "value": {"a": 1}}, key="k")

    async def scenario() -> None:
        await fakes.requests.ask(first)
        await fakes.requests.ask(other)

    (refused,) = run(fakes, scenario())
    assert (refused.status, refused.code) == (409, "idempotency_conflict")
    assert len(fakes.log.requests) == 1


def answer_to(request: Any, **parts: Any) -> Any:
    """A reply as the owner of the car stores it under the request's id."""
    same = {name: request[name] for name in ("request_id", "vehicle_id", "body_hash")}
    return {**same, "revision": 8, "status": 200, "body": {}, **parts}


PATCHES = [Wish("desired", "car-1", {"op": "patch", "value": {"a": n}}, key="k") for n in (1, 2)]


def test_accepted_body_wins_over_another_that_waits_under_its_key() -> None:
    """Of two bodies under one key at once the accepted one is answered, the other is 409."""
    fakes = Fakes(owner=lambda request: None, wait_s=60)

    async def scenario() -> list[Any]:
        asking = [asyncio.create_task(fakes.requests.ask(wish)) for wish in PATCHES]
        await fakes.log.has(2)
        first, _ = fakes.log.requests
        fakes.reader.stored[first["request_id"]] = answer_to(first)
        return await asyncio.gather(*asking, return_exceptions=True)

    ((decision, refused),) = run(fakes, scenario())
    assert decision.reply["status"] == 200
    assert (refused.status, refused.code) == (409, "idempotency_conflict")


def test_refusal_of_another_body_is_not_the_answer() -> None:
    """Who asked for another body under the key waits for the decision on its own."""
    fakes = Fakes(owner=lambda request: None, wait_s=60)

    async def scenario() -> list[Any]:
        asking = [asyncio.create_task(fakes.requests.ask(wish)) for wish in PATCHES]
        await fakes.log.has(2)
        first, second = fakes.log.requests
        fakes.reader.stored[first["request_id"]] = answer_to(first, status=412)
        refused = await asking[0]
        fakes.reader.stored[second["request_id"]] = answer_to(second, body={"version": 4})
        return [refused, await asking[1]]

    ((refused, accepted),) = run(fakes, scenario())
    assert refused.reply["status"] == 412
    assert accepted.reply["body"] == {"version": 4}


def test_refusal_of_another_body_alone_is_409_in_the_end() -> None:
    """When nothing else comes the key is known to be another request's."""
    fakes = Fakes(owner=lambda request: None, wait_s=0.2)

    async def scenario() -> Any:
        asking = asyncio.create_task(fakes.requests.ask(PATCHES[1]))
        await fakes.log.has(1)
        (request,) = fakes.log.requests
        fakes.reader.stored[request["request_id"]] = answer_to(
            request, status=412, body_hash=PATCHES[0].body_hash()
        )
        return await asking

    (refused,) = run(fakes, scenario())
    assert (refused.status, refused.code) == (409, "idempotency_conflict")


def test_keys_of_two_vehicles_do_not_meet() -> None:
    """The same key for another vehicle is another request."""
    fakes = Fakes()
    wishes = [Wish("delete", vehicle_id, {}, key="k") for vehicle_id in ("car-1", "car-2")]
    run(fakes, *(fakes.requests.ask(wish) for wish in wishes))
    assert [request["vehicle_id"] for request in fakes.log.requests] == ["car-1", "car-2"]


def test_order_of_members_does_not_make_another_body() -> None:
    """A client may write the members of a body in any order."""
    one = Wish("desired", "car-1", {"op": "put", "value": {"a": 1, "b": {"c": 1, "d": 2}}})
    other = Wish("desired", "car-1", {"value": {"b": {"d": 2, "c": 1}, "a": 1}, "op": "put"})
    assert one.body_hash() == other.body_hash()


def test_without_a_key_every_request_is_new() -> None:
    """Two equal requests without a key are two requests."""
    wish = Wish("delete", "car-1", {})
    assert wish.request_id() != wish.request_id()


def test_request_that_kafka_does_not_take_fails_at_once() -> None:
    """A lost request is an error of its own, long before the wait is over."""
    fakes = Fakes(wait_s=60)
    fakes.log.away = True
    (error,) = run(fakes, fakes.requests.ask(Wish("delete", "car-1", {})))
    assert isinstance(error, LogUnavailable)


def test_writes_of_one_twin_are_bounded() -> None:
    """One more undecided write than allowed is refused; other twins are not affected."""
    fakes = Fakes(owner=lambda request: None, wait_s=0.2)
    many = [
        fakes.requests.ask(Wish("delete", "car-1", {}))
        for _ in range(requests.MAX_UNDECIDED_PER_TWIN + 1)
    ]
    *undecided, refused, other = run(fakes, *many, fakes.requests.ask(Wish("delete", "car-2", {})))
    assert {problem.code for problem in undecided} == {"no_decision_yet"}
    assert (refused.status, refused.code) == (429, "too_many_writes")
    assert other.code == "no_decision_yet"


def test_undecided_requests_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """One more undecided request than the process holds is refused, and room comes back."""
    monkeypatch.setattr(requests, "MAX_UNDECIDED", 3)
    fakes = Fakes(owner=lambda request: None, wait_s=0.1)

    async def scenario() -> list[Any]:
        asked = [fakes.requests.ask(Wish("delete", f"car-{n}", {})) for n in range(4)]
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        later = fakes.requests.ask(Wish("delete", "car-9", {}))
        return [*outcomes, *await asyncio.gather(later, return_exceptions=True)]

    (codes,) = run(fakes, scenario())
    assert [problem.code for problem in codes] == [
        "no_decision_yet",
        "no_decision_yet",
        "no_decision_yet",
        "too_busy",
        "no_decision_yet",
    ]


def test_replies_are_read_again_after_redis_was_away() -> None:
    """A Redis that is away for a moment delays an answer and does not lose it."""
    fakes = Fakes(owner=lambda request: {"status": 204})

    async def scenario() -> Any:
        fakes.reader.away = True
        asking = asyncio.create_task(fakes.requests.ask(Wish("delete", "car-1", {})))
        await fakes.reader.failed.wait()
        fakes.reader.away = False
        return await asking

    (decision,) = run(fakes, scenario())
    assert decision.reply["status"] == 204


class Hints:
    """Hints as a test wants them: what is put is heard; an error ends the listening."""

    def __init__(self, fakes: Fakes) -> None:
        self._heard: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        fakes.reader.hints = self._hints  # type: ignore[method-assign]

    def put(self, heard: str | Exception | None) -> None:
        self._heard.put_nowait(heard)

    async def _hints(self) -> AsyncIterator[str | None]:
        while True:
            heard = await self._heard.get()
            self._heard.task_done()
            if isinstance(heard, Exception):
                raise heard
            yield heard

    async def all_taken(self) -> None:
        await self._heard.join()


def test_hint_brings_the_answer_before_the_next_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hinted reply is read at once; one whose hint was lost is read when all are."""
    monkeypatch.setattr(requests, "POLL_S", 60)
    monkeypatch.setattr(requests, "POLL_HINTED_S", 0.3)
    fakes = Fakes(owner=lambda request: None, wait_s=60)

    async def scenario() -> list[Any]:
        hints = Hints(fakes)
        listening = asyncio.create_task(fakes.requests.listen())
        wishes = [Wish("delete", f"car-{n}", {}) for n in range(2)]
        asking = [asyncio.create_task(fakes.requests.ask(wish)) for wish in wishes]
        await fakes.log.has(2)
        hinted, silent = fakes.log.requests
        fakes.reader.stored[hinted["request_id"]] = answer_to(hinted)
        hints.put(hinted["request_id"])
        first = await asking[0]
        waits = not asking[1].done()
        fakes.reader.stored[silent["request_id"]] = answer_to(silent)
        second = await asking[1]
        listening.cancel()
        return [first, waits, second]

    ((first, waits, second),) = run(fakes, scenario())
    assert waits
    assert [d.reply["vehicle_id"] for d in (first, second)] == ["car-0", "car-1"]


def test_lost_hints_are_logged_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However often Redis refuses to tell, the log says it once, and once that it tells again."""
    monkeypatch.setattr(requests, "_RETRY_S", 0)
    log = Mock()
    monkeypatch.setattr(requests, "log", log)
    fakes = Fakes()

    async def scenario() -> list[tuple[str, str]]:
        hints = Hints(fakes)
        listening = asyncio.create_task(fakes.requests.listen())
        for _ in range(2):
            for _ in range(5):
                hints.put(StoreUnavailable("Redis does not answer: refused"))
            hints.put(None)
            hints.put("somebody else's")
        hints.put(None)
        await hints.all_taken()
        listening.cancel()
        return [(call[0], call[1][0]) for call in log.method_calls]

    (lines,) = run(fakes, scenario())
    assert lines == 2 * [("warning", "no hints of replies"), ("info", "hints of replies again")]
