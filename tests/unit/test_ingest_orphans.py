"""When the session of a worker that is no more may be looked at: never while the worker is heard."""

import asyncio

import pytest

from ingest.orphans import AGAIN, QUIET, Roll, UnderWay
from ingest.packets import Publish
from ingest.uplink import Uplink
from tests.fake_clock import FakeClock


def signs(roll, count, *others):
    """Worker 0 hears itself so often, and each time the others."""
    for _ in range(count):
        roll.heard(0)
        for worker in others:
            roll.heard(worker)


def taken(roll):
    """The numbers that are due now, each looked at."""
    found = []
    while (number := roll.due()) is not None:
        roll.looked(number)
        found.append(number)
    return found


def test_numbers_without_a_worker_are_looked_at_once():
    """After worker 0 has heard nobody but itself for a while; hearing nothing at all proves nothing."""
    roll = Roll(range(2, 5))
    assert taken(roll) == []
    signs(roll, QUIET - 1)
    assert taken(roll) == []
    signs(roll, 1)
    assert taken(roll) == [2, 3, 4]
    signs(roll, 10 * QUIET)
    assert taken(roll) == []


def test_a_worker_that_runs_is_let_alone_until_it_falls_silent():
    """As in a scaling down where worker 0 is the first that knows; and again should it come back."""
    roll = Roll(range(2, 5))
    signs(roll, 10 * QUIET, 1, 3)
    assert taken(roll) == [2, 4]
    signs(roll, QUIET - 1)
    assert taken(roll) == []
    signs(roll, 1)
    assert taken(roll) == [3]
    signs(roll, 5, 3)
    signs(roll, QUIET)
    assert taken(roll) == [3]


def test_after_a_reconnect_nothing_is_known():
    """Who spoke while we were away was not heard: listen first, then look at all of them again."""
    roll = Roll(range(2, 4))
    signs(roll, 10 * QUIET, 3)
    assert taken(roll) == [2]
    roll.anew()
    assert taken(roll) == []
    signs(roll, QUIET)
    assert taken(roll) == [2, 3]


def test_what_could_not_be_taken_is_tried_again_later_and_not_while_it_is_heard():
    """A worker that came back under its number has thrown us out, and keeps its session."""
    roll = Roll(range(2, 4))
    signs(roll, QUIET)
    assert taken(roll) == [2, 3]
    roll.failed(2)
    roll.failed(3)
    signs(roll, 1, 3)
    signs(roll, AGAIN + QUIET - 2, 3)
    assert taken(roll) == []
    signs(roll, 1, 3)
    assert taken(roll) == [2]


class Reading:
    """A client that has read all that waited for it."""

    sharers = 1

    def behind(self, _now):
        return False


@pytest.mark.parametrize(("waited", "most"), [(True, 0), (False, 99)])
def test_what_a_session_held_is_not_held_against_a_car_s_rate(waited, most):
    """Messages of hours come at once; the client of the shard does not know that they waited."""

    class Outbox:
        def send(self, record, done):
            done()

    class Receipt:
        def ack(self):
            """Nothing to do."""

    uplink = Uplink(Outbox(), "off", FakeClock(), rate=1, sources={0: Reading()})
    for number in range(100):
        said = b'{"sequence":%d,"speed":1}' % number
        message = Publish("vehicles/car-1/telemetry", said)
        uplink.receive(0, message, Receipt(), waited=waited)
    assert uplink.received == 100
    assert (uplink.rejected["rate_limited"] > 0) is (most > 0)


def test_a_session_is_drained_when_the_receipts_of_all_its_messages_are_given():
    """In any order; each receipt is given on to the connection."""

    class Receipt:
        acked = 0

        def ack(self):
            Receipt.acked += 1

    async def play():
        receipts = []
        under_way = UnderWay(lambda _message, receipt: receipts.append(receipt))
        await under_way.drained()
        under_way.take(None, Receipt())
        under_way.take(None, Receipt())
        waiting = asyncio.ensure_future(under_way.drained())
        receipts[1].ack()
        await asyncio.sleep(0)
        assert not waiting.done()
        receipts[0].ack()
        async with asyncio.timeout(10):
            await waiting
        assert (under_way.taken, Receipt.acked) == (2, 2)

    asyncio.run(play())
