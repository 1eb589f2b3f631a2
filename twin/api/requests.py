"""A write: asked of the twin's owner through Kafka, answered by its reply in Redis.

    ask -> stored reply? -> topic requests -> (owner decides) -> reply:{id} + hint -> answer

One task reads for all who wait: what was hinted at, together, as soon as the read before is over; and
all that is awaited every POLL_S, because a hint may be lost. While hints are heard that is rare: of
2,000 awaited replies it would otherwise keep the process busy. With an Idempotency-Key the request id
follows from vehicle and key, therefore a repetition finds the first decision, on any replica.

Two bodies under one key at once have one request id, too. What the owner accepted counts for both, so
the other one is a conflict. A refusal is no such word: the owner does not remember it and goes on to
decide the other body, whose asker waits for that.

A 429 is no decision: nothing was done, and the client was told to come back. A repetition of it is
asked under a request id of its own, or the stored 429 would answer; the owner, who remembers the
keys of commands himself, still makes one command of it however often it is asked.
"""

import asyncio
import hashlib
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final, Protocol
from uuid import uuid4

import orjson

from twin.api.problems import Problem
from twin.api.reader import Reader, StoreUnavailable
from twin.api.request_log import LogUnavailable
from twin.kit import logs, metrics
from twin.kit.clock import Clock
from twin.wire.records import Reply, Request, RequestKind

log = logs.get(__name__)

POLL_S: Final = 0.04
POLL_HINTED_S: Final = 0.25
"""While hints are heard."""
MAX_UNDECIDED: Final = 2000
MAX_UNDECIDED_PER_TWIN: Final = 100
_RETRY_S: Final = 0.5


class Log(Protocol):
    """Where requests are appended (`request_log.RequestLog`)."""

    def append(self, request: Request, traceparent: str | None, on_lost: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks of a twin. `same` is the part that a repetition must repeat."""

    kind: RequestKind
    vehicle_id: str
    body: dict[str, Any]
    if_match: int | None = None
    key: str | None = None
    traceparent: str | None = None

    def request_id(self) -> str:
        """Follows from vehicle and key; new at each call without a key."""
        if self.key is None:
            return uuid4().hex
        return hashlib.sha256(f"{self.vehicle_id}\0{self.key}".encode()).hexdigest()

    def body_hash(self) -> str:
        """Equal for equal wishes; a command's id is made here at each try, so it does not count."""
        body = self.body
        if self.kind == "command":
            body = {name: value for name, value in body.items() if name != "id"}
        same = {"kind": self.kind, "body": body, "if_match": self.if_match}
        return hashlib.sha256(orjson.dumps(same, option=orjson.OPT_SORT_KEYS)).hexdigest()


@dataclass(frozen=True, slots=True)
class Decision:
    """The owner's reply; `repeated` when it was there before this request."""

    reply: Reply
    repeated: bool = False


class _Waiter:
    """Somebody who waits for the decision on a body."""

    __slots__ = ("body_hash", "conflict", "future")

    def __init__(self, body_hash: str) -> None:
        self.future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.body_hash = body_hash
        self.conflict = False
        """Another body was refused under the same key, and so will this one be if nothing comes."""

    def hear(self, reply: Reply) -> None:
        """Take a reply under the awaited id."""
        if self.future.done():
            return
        if reply["status"] >= HTTPStatus.BAD_REQUEST and not _same(reply, self.body_hash):
            self.conflict = True
        else:
            self.future.set_result(reply)

    def lose(self, error: LogUnavailable) -> None:
        """There will be no reply."""
        if not self.future.done():
            self.future.set_exception(error)


class _Outage:
    """Says once that something is away, and once that it is back."""

    def __init__(self, away: str, back: str) -> None:
        self._away, self._back = away, back
        self._on = False

    def begin(self, error: Exception) -> None:
        """It is away."""
        if not self._on:
            log.warning(self._away, error=str(error))
        self._on = True

    def end(self) -> None:
        """It is there."""
        if self._on:
            log.info(self._back)
        self._on = False


class Requests:
    """Asks owners and waits; `poll` must be running for answers to arrive."""

    def __init__(self, reader: Reader, log: Log, clock: Clock, wait_s: float) -> None:
        self._reader = reader
        self._log = log
        self._clock = clock
        self._wait_s = wait_s
        self._waiting: dict[str, set[_Waiter]] = {}
        self._undecided: Counter[str] = Counter()
        self._awaited = asyncio.Event()
        self._hinted: set[str] = set()
        self._hint = asyncio.Event()
        self._hearing = False

    async def ask(self, wish: Wish) -> Decision:
        """The owner's decision. Raises `Problem` when there is none or the key is another's."""
        request_id, body_hash = wish.request_id(), wish.body_hash()
        if wish.key is not None:
            for reply in await self._reader.replies([request_id]):
                if not _same(reply, body_hash):
                    raise _conflict(request_id)
                if reply["status"] != HTTPStatus.TOO_MANY_REQUESTS:
                    return Decision(reply, repeated=True)
                request_id = uuid4().hex
        self._admit(wish.vehicle_id)
        request = Request(
            request_id=request_id,
            kind=wish.kind,
            vehicle_id=wish.vehicle_id,
            at=self._clock.now_ms(),
            by="api",
            body=wish.body,
            body_hash=body_hash,
        )
        if wish.if_match is not None:
            request["if_match"] = wish.if_match
        if wish.key is not None:
            request["idempotency_key"] = wish.key
        self._undecided[wish.vehicle_id] += 1
        try:
            return Decision(await self._decide(request, wish.traceparent))
        finally:
            self._undecided[wish.vehicle_id] -= 1
            if not self._undecided[wish.vehicle_id]:
                del self._undecided[wish.vehicle_id]

    async def _decide(self, request: Request, traceparent: str | None) -> Reply:
        request_id = request["request_id"]
        started = time.perf_counter()
        waiter = _Waiter(request["body_hash"])
        self._waiting.setdefault(request_id, set()).add(waiter)
        self._awaited.set()
        try:
            self._log.append(request, traceparent, waiter.lose)
            async with asyncio.timeout(self._wait_s):
                reply = await waiter.future
        except TimeoutError as error:
            if waiter.conflict:
                raise _conflict(request_id) from error
            raise Problem(
                "no_decision_yet",
                f"the owner of {request['vehicle_id']} has not decided within {self._wait_s:g} s;"
                f" it may still do so: GET /v1/requests/{request_id}, or ask again with the same"
                " Idempotency-Key",
                members={"request_id": request_id},
                headers={"Retry-After": "1"},
            ) from error
        finally:
            others = self._waiting[request_id]
            others.discard(waiter)
            if not others:
                del self._waiting[request_id]
        if not _same(reply, waiter.body_hash):
            raise _conflict(request_id)
        metrics.API_DECISIONS.observe(time.perf_counter() - started)
        return reply

    def _admit(self, vehicle_id: str) -> None:
        if self._undecided[vehicle_id] >= MAX_UNDECIDED_PER_TWIN:
            raise Problem(
                "too_many_writes",
                f"{MAX_UNDECIDED_PER_TWIN} writes to {vehicle_id} are undecided, which is the most",
                headers={"Retry-After": "1"},
            )
        if len(self._waiting) >= MAX_UNDECIDED:
            raise Problem(
                "too_busy",
                f"{MAX_UNDECIDED} requests are undecided, which is the most",
                headers={"Retry-After": "1"},
            )

    async def poll(self) -> None:
        """Bring replies to those who wait, for ever; Redis may come and go."""
        outage = _Outage("replies cannot be read", "replies can be read again")
        now = asyncio.get_running_loop().time
        read_all = 0.0
        while True:
            if not self._waiting:
                self._awaited.clear()
                await self._awaited.wait()
                read_all = now()
            await self._hinted_within(read_all + self._period() - now())
            if now() >= read_all + self._period():
                wanted, read_all = set(self._waiting), now()
            else:
                wanted = self._hinted & self._waiting.keys()
            self._hinted.clear()
            self._hint.clear()
            try:
                for reply in await self._reader.replies(wanted):
                    for waiter in self._waiting.get(reply["request_id"], ()):
                        waiter.hear(reply)
                outage.end()
            except StoreUnavailable as error:
                outage.begin(error)
                await asyncio.sleep(_RETRY_S)

    async def listen(self) -> None:
        """Hear hints of replies, for ever; they may be lost."""
        outage = _Outage("no hints of replies", "hints of replies again")
        while True:
            try:
                async for request_id in self._reader.hints():
                    self._hearing = True
                    outage.end()
                    if request_id in self._waiting:
                        self._hinted.add(request_id)
                        self._hint.set()
            except StoreUnavailable as error:
                self._hearing = False
                outage.begin(error)
                await asyncio.sleep(_RETRY_S)

    def _period(self) -> float:
        return POLL_HINTED_S if self._hearing else POLL_S

    async def _hinted_within(self, seconds: float) -> None:
        """Return when there is a hint, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hint.wait()


def _same(reply: Reply, body_hash: str) -> bool:
    """Whether the reply is about this body."""
    return reply.get("body_hash", body_hash) == body_hash


def _conflict(request_id: str) -> Problem:
    return Problem(
        "idempotency_conflict",
        "this Idempotency-Key was used for another request to the same vehicle within the last"
        " 24 h; a new request needs a new key",
        members={"request_id": request_id},
    )
