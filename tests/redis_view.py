"""An owner that shows twins, and what Redis should have of them then, said plainly."""

import asyncio
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest
import redis

from twin.outbox import Outbox, Output
from twin.packed import pack
from twin.reported import Reported
from twin.state import create
from twin.view import Shown, View
from twin.wire import keys
from twin.wire.catalogue import INDEXED
from twin.wire.partition import partition_of

PARTITIONS = 2
DEADLINE_S = 20


@pytest.fixture
def store(redis_url: str) -> Iterator[redis.Redis]:
    """A database for views, empty."""
    with redis.from_url(redis_url.rpartition("/")[0] + "/9") as client:
        client.flushdb()
        yield client
        client.flushdb()


@pytest.fixture
def url(redis_url: str, store: redis.Redis) -> str:
    """The address of `store`."""
    return redis_url.rpartition("/")[0] + "/9"


def twin(
    vehicle_id: str, revision: int = 1, *, epoch: int = 1, created_at: int = 1000, **parts: Any
):
    """A document as its owner holds it; `seen`, `signals`, `open`, `late` are short for more."""
    made = create(vehicle_id, created_at)
    made["epoch"] = epoch
    made["revision"] = revision
    made["attributes"] = {"fleet": parts.get("fleet", "berlin"), "model": parts.get("model", "m1")}
    made["presence"]["state"] = parts.get("presence", "online")
    made["applied"] = parts.get("applied", {})
    if "late" in parts:
        made["counts"] = {"late": parts["late"], "duplicates": 0}
    if "seen" in parts:
        made["presence"]["seen"] = parts["seen"]
    made["health"]["state"] = parts.get("health", "normal")
    made["health"]["since"] = parts.get("since", 500)
    made["commands"]["open"] = [f"{vehicle_id}.{n}" for n in range(parts.get("open", 0))]
    made["reported"] = Reported.of(
        {
            name: {"v": float(value), "t": 1, "n": 1, "s": revision, "o": revision}
            for name, value in parts.get("signals", {}).items()
        }
    )
    return made


def command(vehicle_id: str, ulid: str, at: int = 1000, state: str = "queued", **parts: Any) -> Any:
    """A ledger entry; `ulid` is filled up to 26 characters."""
    return {
        "id": f"{vehicle_id}.{ulid:0>26}",
        "vehicle_id": vehicle_id,
        "name": "ping",
        "args": {},
        "lane": "default",
        "state": state,
        "issued_at": at,
        "expires_at": at + 1000,
        "updated_at": at,
        "by": "api",
        "history": [],
        "attempts": [],
        **parts,
    }


def check_index(store: Any, twins: dict[str, Any]) -> None:
    """Documents, ids, sets, counts and orders are exactly those of `twins`; numbers within their lag."""
    documents = {}
    for raw in store.keys("twin:*"):
        value = store.get(raw)
        found = orjson.loads(keys.document_of(value))
        head = keys.head_of(value)
        index = keys.index_of(found)
        documents[raw.decode().partition(":")[2]] = found
        assert head[3:] == tuple(index[field] for field in keys.COUNTED)
        assert head[:3] == (found["epoch"], found["created_at"], found["revision"])
    expected = {v: orjson.loads(orjson.dumps(t, default=dict)) for v, t in twins.items()}
    assert documents == expected
    assert store.zrange(keys.IDS, 0, -1) == [v.encode() for v in sorted(twins)]
    indexes = {v: keys.index_of(one) for v, one in expected.items()}
    for field in keys.COUNTED:
        counts = Counter(index[field] for index in indexes.values())
        assert _scores(store, keys.count(field)) == counts, field
        assert [raw.decode() for raw in store.zrange(keys.values(field), 0, -1)] == sorted(counts)
        for value in counts:
            members = {raw.decode() for raw in store.smembers(keys.having(field, value))}
            assert members == {v for v, index in indexes.items() if index[field] == value}
        sets = {raw.decode() for raw in store.keys(f"is:{field}:*")}
        assert sets == {keys.having(field, value) for value in counts}
    for name in (*INDEXED, keys.LAST_SEEN):
        wanted = {v: index[name] for v, index in indexes.items() if name in index}
        found = _scores(store, keys.by(name))
        assert found.keys() == wanted.keys(), name
        for vehicle_id, number in wanted.items():
            assert math.isclose(found[vehicle_id], number, abs_tol=keys.LAG[name]), name
    open_ = {v: index["open_commands"] for v, index in indexes.items() if index["open_commands"]}
    assert _scores(store, keys.by(keys.OPEN_COMMANDS)) == open_
    alarms = {
        v: t["health"]["since"] for v, t in expected.items() if t["health"]["state"] == "alarm"
    }
    assert _scores(store, keys.ALARMS) == alarms


def _scores(store: Any, key: str) -> dict[str, float]:
    return {raw.decode(): score for raw, score in store.zrange(key, 0, -1, withscores=True)}


def place(vehicle_id):
    return partition_of(vehicle_id.encode(), PARTITIONS)


async def durable():
    """The owner of these tests has nothing that Kafka has not."""


def document(one):
    """A twin as the worker writes it."""
    return pack(one).dump(one["vehicle_id"])


def outbox(*commands, removed=(), revision=10**6):
    """The header of a twin's record that tells these entries, and at a revision the end of others."""
    outputs = [
        Output("ledger", key_of(one), orjson.dumps(one), one.get("revision", 0)) for one in commands
    ]
    outputs += [Output("ledger", key_of({"id": gone}), None, revision) for gone in removed]
    made = Outbox()
    made.add("requests", 7, outputs)
    return made.dump()


def key_of(one):
    """Of a ledger entry in Kafka."""
    return f"{one['id'].rpartition('.')[0]}/{one['id']}"


class Resting(Mapping):
    """A live table of twins, each of them packed when it is looked at."""

    def __init__(self, twins):
        self._twins = twins

    def __getitem__(self, vehicle_id):
        return pack(self._twins[vehicle_id])

    def __iter__(self):
        return iter(self._twins)

    def __len__(self):
        return len(self._twins)


class Owner:
    """Tables of a worker and the view of them.

    `log`: is told the records of twins before the view is, those of the ledger after it.
    """

    def __init__(self, url, epoch=1, log=None):
        self.view = View(url, PARTITIONS)
        self.epoch = epoch
        self.twins = defaultdict(dict)
        self.commands = defaultdict(dict)
        self._log = log
        self._run = None

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        if self._run is not None:
            self._run.cancel()
            await asyncio.gather(self._run, return_exceptions=True)
        await self.view.close()

    def hold(self, *twins, commands=()):
        """Have these in the tables, without telling the view."""
        for one in twins:
            self.twins[place(one["vehicle_id"])][one["vehicle_id"]] = one
        for one in commands:
            self.commands[place(one["vehicle_id"])][f"{one['vehicle_id']}/{one['id']}"] = one

    async def claim(self, *partitions):
        for partition in partitions or range(PARTITIONS):
            tables = Resting(self.twins[partition]), self.commands[partition]
            await self.view.claim(partition, self.epoch, *tables)

    def start(self, durable=durable):
        self._run = asyncio.create_task(self.view.run(durable))

    async def shown(self):
        """Everything pending is shown, and what was too much is gone."""
        async with asyncio.timeout(DEADLINE_S):
            while self.view.pending:
                assert not self._run.done(), self._run
                await asyncio.sleep(0.005)

    async def write(self, *twins, deleted=(), commands=(), removed=(), replies=()):
        """One batch: the tables change, then the view is told. The commands of a deleted twin go."""
        removed = [*removed]
        for vehicle_id in deleted:
            held = self.commands[place(vehicle_id)]
            gone = [key for key in held if key.partition("/")[0] == vehicle_id]
            removed += [held.pop(key)["id"] for key in gone]
            self.twins[place(vehicle_id)].pop(vehicle_id, None)
        shown = Shown(commands=commands, removed=removed, replies=replies)
        for vehicle_id in deleted:
            shown.deleted.setdefault(place(vehicle_id), set()).add(vehicle_id)
        self.hold(*twins, commands=commands)
        for one in twins:
            vehicle_id = one["vehicle_id"]
            rows = shown.rows.setdefault(place(vehicle_id), {})
            rows[vehicle_id] = pack(one).row(vehicle_id)
        if self._log is not None:
            self._log_twins(shown)
        said = [*commands, *replies]
        about = {*shown.rows, *shown.deleted, *(place(one["vehicle_id"]) for one in said)}
        shown.epochs.update(dict.fromkeys(about, self.epoch))
        await self.view.write(shown)
        if self._log is not None:
            for one in commands:
                where = ("ledger", place(one["vehicle_id"]))
                self._log.append(where, key_of(one), orjson.dumps(one))
            for command_id in removed:
                key = key_of({"id": command_id})
                self._log.append(("ledger", place(key.partition("/")[0])), key, None)

    def _log_twins(self, shown):
        told = defaultdict(lambda: ([], []))
        for one in shown.commands:
            told[one["vehicle_id"]][0].append(one)
        for command_id in shown.removed:
            told[command_id.rpartition(".")[0]][1].append(command_id)
        documents = {v: one.document for rows in shown.rows.values() for v, one in rows.items()}
        deleted = {v: None for names in shown.deleted.values() for v in names}
        for vehicle_id, value in (deleted | documents).items():
            commands, removed = told.get(vehicle_id, ((), ()))
            header = outbox(*commands, removed=removed)
            self._log.append(("twins", place(vehicle_id)), vehicle_id, value, header)
