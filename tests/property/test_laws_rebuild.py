"""What the changelogs say of commands, read at any moment, is what was decided: no less and no more."""

from dataclasses import dataclass, field
from typing import Any

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from tests.redis_view import command, document, key_of, outbox, twin
from twin.book import IDEMPOTENCY_MS
from twin.changelog import Newest, Tail
from twin.known import Known, Told
from twin.lifecycle import FINAL

CAR = "a"
UNTOLD = 2
"""Batches whose record of the twin may be there while the ledger has heard of neither."""


@dataclass
class Worker:
    """Decides about one car; its ledger lags behind, and Kafka compacts."""

    twins: list[Any] = field(default_factory=list)
    """Document and outbox; None where compaction took the record."""
    ledger: list[Any] = field(default_factory=list)
    untold: list[tuple[int, list[Any]]] = field(default_factory=list)
    held: dict[str, Any] = field(default_factory=dict)
    car: Any = None
    now: int = 1_790_000_000_000
    given: int = 0

    def batch(self, ops):
        """Decide, and write the record of the twin."""
        if len(self.untold) == UNTOLD:
            self.tell()
        self.now += 1
        said, removed = {}, {}
        for op, number in ops:
            if op == "delete":
                removed |= self.delete()
                said.clear()
                continue
            if self.car is None:
                self.car = twin(CAR, 0, created_at=self.now)
            self.car["revision"] += 1
            revision = self.car["revision"]
            open_ = [c for c, one in self.held.items() if one["state"] not in FINAL]
            if op == "give":
                self.given += 1
                one = command(CAR, f"{self.given}", at=self.now, revision=revision)
            elif open_:
                state = "succeeded" if op == "end" else "running"
                one = {**self.held[open_[number % len(open_)]], "state": state}
                one |= {"updated_at": self.now, "revision": revision}
            else:
                continue
            self.held[one["id"]] = said[one["id"]] = one
        value = None
        if self.car is not None:
            open_ = [c for c, one in self.held.items() if one["state"] not in FINAL]
            self.car["commands"]["open"] = open_
            value = document(self.car)
        header = outbox(*said.values(), removed=removed, revision=max(removed.values(), default=0))
        self.twins.append((value, header))
        words = [(CAR + "/" + c, None) for c in removed]
        words += [(key_of(one), one) for one in said.values()]
        self.untold.append((len(self.twins) - 1, words))

    def delete(self):
        """The twin is gone; the ledger hears of the commands that the book still has."""
        if self.car is None:
            return {}
        revision = self.car["revision"] + 1
        booked = {
            c: revision
            for c, one in self.held.items()
            if one["state"] not in FINAL or one["updated_at"] + IDEMPOTENCY_MS >= self.now
        }
        self.held.clear()
        self.car = None
        return booked

    def tell(self):
        """The ledger hears of one batch."""
        if self.untold:
            self.ledger += self.untold.pop(0)[1]

    def compact(self, most):
        """Take records of the twin in front of place `most`, but never the newest."""
        for place in range(min(most, len(self.twins) - 1)):
            self.twins[place] = None


class Reading:
    """Follows both changelogs, the ledger first."""

    def __init__(self, worker):
        self.worker = worker
        self.known = Known()
        self.ends = {"ledger": 0, "twins": 0}
        self.commands = {}

    def read(self, between):
        told = Told()
        tail = Tail()
        for key, one in self._new("ledger"):
            tail.newest[key] = Newest(None if one is None else _dump(one), {}, 0)
        self.known.take_ledger(tail, told)
        between()
        tail = Tail()
        for record in self._new("twins"):
            if record is not None:
                tail.newest[CAR] = Newest(record[0], {}, 0)
                tail.outboxes.append((CAR, record[1]))
        self.known.take_twins(tail, told)
        self.commands |= told.commands

    def _new(self, name):
        log = getattr(self.worker, name)
        start, self.ends[name] = self.ends[name], len(log)
        return log[start:]


def _dump(one):
    return orjson.dumps(one)


OPS = st.lists(
    st.tuples(
        st.sampled_from(["give", "move", "end", "give", "move", "delete"]), st.integers(0, 9)
    ),
    min_size=1,
    max_size=4,
)
STEPS = st.one_of(
    st.tuples(st.just("batch"), OPS),
    st.tuples(st.just("tell"), st.just(None)),
    st.tuples(st.just("read"), st.none() | OPS),
    st.tuples(st.just("compact"), st.just(None)),
    st.tuples(st.just("days"), st.just(None)),
)


def go(worker, reading, kind, what):
    if kind == "batch":
        worker.batch(what)
    elif kind == "tell":
        worker.tell()
    elif kind == "days":
        worker.now += 2 * IDEMPOTENCY_MS
    elif kind == "compact":
        # Of what is older than the lag, the ledger has heard.
        worker.compact(worker.untold[0][0] if worker.untold else len(worker.twins))
    else:
        reading.read(lambda: what and worker.batch(what))


GIVE, END, DELETE = (("batch", [(op, 0)]) for op in ("give", "end", "delete"))
READ, TELL, COMPACT, DAYS = ((kind, None) for kind in ("read", "tell", "compact", "days"))


# Compaction takes the word of the end before it is read, and the twin is there again.
@example([GIVE, READ, DELETE, GIVE, TELL, TELL, TELL, COMPACT])
# The ledger is not told the end of what the book had forgotten.
@example([GIVE, END, DAYS, DELETE, DAYS, GIVE])
@given(st.lists(STEPS, max_size=25))
def test_known_commands_are_the_decided_ones(steps):
    """However far the ledger lags, whatever compaction took, and between any two batches."""
    worker = Worker()
    reading = Reading(worker)
    for kind, what in [*steps, ("read", None)]:
        go(worker, reading, kind, what)
        if kind != "read":
            continue
        every = [command(CAR, f"{n}")["id"] for n in range(1, worker.given + 1)]
        assert {c for c in every if reading.known.has(c)} == worker.held.keys()
        assert {c for c in every if not reading.known.stray(c)} == worker.held.keys()
        # What would be shown of each is its newest state.
        assert {c: reading.commands[c] for c in worker.held} == worker.held


@given(st.lists(STEPS, max_size=25), st.integers(0, 30))
def test_open_command_is_never_a_stray(steps, most):
    """Not even when compaction took the outbox of an owner that froze before the ledger heard of it."""
    worker = Worker()
    for kind, what in steps:
        go(worker, Reading(worker), kind, what)
    worker.compact(most)
    reading = Reading(worker)
    reading.read(lambda: None)
    open_ = [c for c, one in worker.held.items() if one["state"] not in FINAL]
    assert not [c for c in open_ if reading.known.stray(c)]
