"""Topic `rejected` behind the API, without Kafka: nothing hangs, and the jobs are bounded."""

import asyncio
import threading

import pytest
from confluent_kafka import KafkaError

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

    # So says the client when it drops a record, and it does not say whether it was on its way.
    told = "it is not known whether Kafka has the record for scores: Local: Message timed out"
    assert asyncio.run(ask()) == told


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (KafkaError._MSG_TIMED_OUT, "it is not known whether Kafka has the record for scores: "),
        (KafkaError.REQUEST_TIMED_OUT, "it is not known whether Kafka has the record for scores: "),
        (KafkaError._PURGE_INFLIGHT, "it is not known whether Kafka has the record for scores: "),
        (KafkaError._PURGE_QUEUE, "Kafka did not take the record for scores: "),
        (KafkaError.MSG_SIZE_TOO_LARGE, "Kafka did not take the record for scores: "),
        (None, "it is not known whether Kafka has the record for scores: Kafka did not answer"),
    ],
)
def test_a_record_that_may_be_in_kafka_is_not_said_to_be_lost(monkeypatch, code, said):
    """Only an error of Kafka, or a record that never left, is a refusal; silence says nothing."""

    class Producer:
        def produce(self, topic, value, key, *, on_delivery, headers):
            self.report = on_delivery

        def flush(self, _timeout):
            if code is not None:
                self.report(KafkaError(code), None)

        def purge(self):
            pass

    monkeypatch.setattr(rejected_log.kafka, "producer", lambda *_, **__: Producer())
    log = RejectedLog(NOBODY, wait_s=0.1)
    (fault,) = log._send([Again("scores", b"car-1", b"{}", [])])
    assert fault.startswith(said)


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
