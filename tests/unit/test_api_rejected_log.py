"""Topic `rejected` behind the API, without Kafka: nothing hangs, and the jobs are bounded."""

import asyncio
import threading

import pytest

from twin.api import rejected_log
from twin.api.problems import Problem
from twin.api.rejected_log import MOST_JOBS, RejectedLog
from twin.api.rejected_scan import Wanted
from twin.api.request_log import LogUnavailable
from twin.wire.redrive import Again

NOBODY = "127.0.0.1:1"


def test_kafka_that_is_away_is_said_and_nothing_is_sent_later(monkeypatch):
    """Reading and sending end in time; a record that was said to be lost is not kept to be sent."""
    monkeypatch.setattr(rejected_log, "_ANSWER_S", 0.2)

    async def ask():
        log = RejectedLog(NOBODY, wait_s=0.1)
        for reading in (log.page(Wanted(), None, 5), log.read({0: (1, 2)})):
            with pytest.raises(LogUnavailable, match="topic rejected"):
                await reading
        (fault,) = await log.send([Again("scores", b"car-1", b"{}", [])])
        await asyncio.to_thread(log.close)
        return fault

    # So says the client when it drops a record.
    assert "timed out" in asyncio.run(ask())


def test_the_event_loop_is_free_and_jobs_are_bounded():
    """One job holds the thread; others wait up to a number, and the next is refused."""
    free = threading.Event()

    async def ask():
        log = RejectedLog(NOBODY, wait_s=0.1)
        waiting = [asyncio.create_task(log._run(free.wait)) for _ in range(MOST_JOBS)]
        await asyncio.sleep(0)
        with pytest.raises(Problem) as refused:
            await log.page(Wanted(), None, 5)
        assert refused.value.code == "too_busy"
        free.set()
        assert all(await asyncio.gather(*waiting))
        assert await log._run(lambda: 7) == 7
        await asyncio.to_thread(log.close)

    asyncio.run(ask())
