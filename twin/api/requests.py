"""A write: asked of the twin's owner through Kafka, answered by its reply in Redis.

    ask -> stored reply? -> topic requests -> (owner decides) -> reply:{id} + hint -> answer

The hint only shortens the wait: one task reads all awaited replies every POLL_S as well, so the
cost does not grow with the number of waiting requests. With an Idempotency-Key the request id
follows from vehicle and key, therefore a repetition finds the first decision, on any replica.

A 429 is no decision: nothing was done, and the client was told to come back. A repetition of it is
asked under a request id of its own, or the stored 429 would answer; the owner, who remembers the
keys of commands himself, still makes one command of it however often it is asked.
"""

import asyncio
import hashlib
import time
from collections import Counter
from collections.abc import Iterable
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


class Requests:
    """Asks owners and waits; `poll` must be running for answers to arrive."""

    def __init__(self, reader: Reader, log: Log, clock: Clock, wait_s: float) -> None:
        self._reader = reader
        self._log = log
        self._clock = clock
        self._wait_s = wait_s
        self._waiting: dict[str, set[asyncio.Future[Reply]]] = {}
        self._undecided: Counter[str] = Counter()
        self._awaited = asyncio.Event()

    async def ask(self, wish: Wish) -> Decision:
        """The owner's decision. Raises `Problem` when there is none or the key is another's."""
        request_id, body_hash = wish.request_id(), wish.body_hash()
        if wish.key is not None:
            for reply in await self._reader.replies([request_id]):
                if _same(reply, body_hash)["status"] != HTTPStatus.TOO_MANY_REQUESTS:
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
            return Decision(_same(await self._decide(request, wish.traceparent), body_hash))
        finally:
            self._undecided[wish.vehicle_id] -= 1
            if not self._undecided[wish.vehicle_id]:
                del self._undecided[wish.vehicle_id]

    async def _decide(self, request: Request, traceparent: str | None) -> Reply:
        request_id = request["request_id"]
        started = time.perf_counter()
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

        def lost(error: LogUnavailable) -> None:
            if not future.done():
                future.set_exception(error)

        self._waiting.setdefault(request_id, set()).add(future)
        self._awaited.set()
        try:
            self._log.append(request, traceparent, lost)
            async with asyncio.timeout(self._wait_s):
                reply = await future
        except TimeoutError as error:
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
            others.discard(future)
            if not others:
                del self._waiting[request_id]
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
        while True:
            await self._awaited.wait()
            if not self._waiting:
                self._awaited.clear()
                continue
            await asyncio.sleep(POLL_S)
            try:
                self._resolve(await self._reader.replies(list(self._waiting)))
            except StoreUnavailable as error:
                log.warning("replies cannot be read", error=str(error))
                await asyncio.sleep(_RETRY_S)

    async def listen(self) -> None:
        """Bring hinted replies at once, for ever; hints may be lost."""
        while True:
            try:
                async for request_id in self._reader.hints():
                    if request_id in self._waiting:
                        self._resolve(await self._reader.replies([request_id]))
            except StoreUnavailable as error:
                log.warning("no hints of replies", error=str(error))
                await asyncio.sleep(_RETRY_S)

    def _resolve(self, replies: Iterable[Reply]) -> None:
        for reply in replies:
            for future in self._waiting.get(reply["request_id"], ()):
                if not future.done():
                    future.set_result(reply)


def _same(reply: Reply, body_hash: str) -> Reply:
    if reply.get("body_hash", body_hash) != body_hash:
        raise Problem(
            "idempotency_conflict",
            "this Idempotency-Key was used for another request to the same vehicle within the last"
            " 24 h; a new request needs a new key",
            members={"request_id": reply["request_id"]},
        )
    return reply
