"""The view on a real Redis: counts in step, no older document over a newer one, deletion."""

import asyncio

import orjson
import pytest
import redis

from twin.state import create
from twin.view import View
from twin.wire import keys

pytestmark = pytest.mark.integration


def twin(vehicle_id, revision, created_at=1000, presence="online", health="normal", fleet="berlin"):
    made = create(vehicle_id, created_at)
    made["revision"] = revision
    made["attributes"] = {"fleet": fleet}
    made["presence"]["state"] = presence
    made["health"]["state"] = health
    return made


@pytest.fixture
def shown(redis_url):
    """Write batches and look at what Redis has, in a database of this module's own."""
    url = redis_url.rpartition("/")[0] + "/9"
    store = redis.from_url(url)
    store.flushdb()

    def write(*batches):
        async def run():
            view = View(url)
            for arguments in batches:
                await view.write(**arguments)
            await view.close()

        asyncio.run(run())
        return store

    yield write
    store.flushdb()
    store.close()


def document(store, vehicle_id):
    return orjson.loads(store.hget(keys.twin(vehicle_id), "d"))


def test_counts_follow_the_documents(shown):
    """Each counted field sums up to the number of twins, whatever changes."""
    store = shown(
        {"twins": {"a": twin("a", 1), "b": twin("b", 1, fleet="munich")}},
        {"twins": {"a": twin("a", 2, presence="offline", health="alarm")}},
    )
    assert store.hgetall("count:presence") == {b"online": b"1", b"offline": b"1"}
    assert store.hgetall("count:health") == {b"normal": b"1", b"alarm": b"1"}
    assert store.hgetall("count:fleet") == {b"berlin": b"1", b"munich": b"1"}
    assert store.zrange(keys.ALARMS, 0, -1) == [b"a"]


def test_an_older_document_does_not_replace_a_newer_one(shown):
    """Revisions decide, not arrival."""
    store = shown(
        {"twins": {"a": twin("a", 7)}}, {"twins": {"a": twin("a", 6, presence="offline")}}
    )
    assert document(store, "a")["revision"] == 7
    assert store.hgetall("count:presence") == {b"online": b"1"}


def test_a_twin_made_again_after_its_deletion_is_shown(shown):
    """Deleted and new in one batch, or the deletion never seen: the new one, from revision 1."""
    store = shown(
        {"twins": {"a": twin("a", 51), "b": twin("b", 51)}},
        {"twins": {"a": twin("a", 1)}, "deleted": {"a"}},
        {"twins": {"b": twin("b", 1, created_at=2000)}},
    )
    assert document(store, "a")["revision"] == 1
    assert document(store, "b")["revision"] == 1
    assert store.hgetall("count:presence") == {b"online": b"2"}


def test_a_deleted_twin_leaves_nothing(shown):
    """Document, id, alarm and counts go."""
    store = shown(
        {"twins": {"a": twin("a", 3, health="alarm")}}, {"twins": {"a": None}, "deleted": {"a"}}
    )
    assert store.keys("*") == []
