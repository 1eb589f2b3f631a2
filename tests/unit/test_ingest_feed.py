"""The feed of Kafka records: what is committed, when it pauses, what a rebalance leaves."""

import asyncio

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from ingest.errors import KafkaRefused
from ingest.feed import Feed
from twin.kit import metrics
from twin.kit.kafka import Lag


class Record:
    """What the feed needs of a Kafka message."""

    def __init__(self, partition, offset, error=None):
        self._place = (partition, offset)
        self._error = error

    def partition(self):
        return self._place[0]

    def offset(self):
        return self._place[1]

    def error(self):
        return self._error


class Log:
    """A consumer that hands out records and remembers what is asked of it."""

    def __init__(self, *records):
        self.waiting = list(records)
        self.commits = []
        self.asked = []
        self.closed = False
        self.refusal = None
        self.rebalance = lambda: None

    def subscribe(self, topics, on_assign, on_revoke, on_lost):
        self.assign = lambda *numbers: on_assign(self, [TopicPartition("t", n) for n in numbers])
        self.revoke = lambda: on_revoke(self, [])
        self.lose = lambda: on_lost(self, [])

    def assignment(self):
        return []

    def position(self, partitions):
        return []

    def poll(self, timeout):
        return self.waiting.pop(0) if self.waiting and "paused" not in self.asked[-1:] else None

    def consume(self, count, timeout):
        rebalance, self.rebalance = self.rebalance, lambda: None
        rebalance()
        taken, self.waiting = self.waiting[:count], self.waiting[count:]
        return taken

    def pause(self, partitions):
        self.asked.append("paused")

    def resume(self, partitions):
        self.asked.append("resumed")

    def commit(self, *, offsets, asynchronous):
        if self.refusal:
            raise self.refusal
        self.commits.append(({o.partition: o.offset for o in offsets}, asynchronous))

    def close(self):
        self.closed = True


def playing(play, *records, waiting=100, partitions=(0, 1)):
    async def run():
        log = Log(*records)
        feed = Feed(log, "t", waiting, "g")
        log.assign(*partitions)
        await play(feed, log)
        if not log.closed:
            await feed.close()

    asyncio.run(run())


def test_a_commit_covers_only_what_is_done_without_a_gap():
    """Offsets go up to the first record that is not done, for each partition by itself."""

    async def play(feed, log):
        taken = await feed.next()
        assert [t.message.offset() for t in taken] == [5, 6, 7, 40]
        taken[1].entry.done = taken[2].entry.done = taken[3].entry.done = True
        assert await feed.next() == []
        assert log.commits == [({1: 41}, True)]
        taken[0].entry.done = True
        await feed.next()
        assert log.commits[1:] == [({0: 8}, True)]

    playing(play, Record(0, 5), Record(0, 6), Record(0, 7), Record(1, 40))


def test_the_end_commits_everything_that_is_done_and_leaves():
    """Closing commits once more, waits for it, and leaves the group."""

    async def play(feed, log):
        first, second = await feed.next()
        first.entry.done = True
        await feed.next()
        second.entry.done = True
        await feed.close()
        assert log.commits[-1] == ({0: 6, 1: 41}, False)
        assert log.closed

    playing(play, Record(0, 5), Record(1, 40))


def test_too_many_waiting_records_pause_the_partitions_until_half_is_done():
    """Polling goes on while paused; nothing is taken until there is room again."""

    async def play(feed, log):
        taken = await feed.next()
        assert await feed.next() == []
        assert log.asked == ["paused"]
        log.waiting.append(Record(0, 9))
        taken[0].entry.done = True
        assert await feed.next() == []
        taken[1].entry.done = True
        assert [t.message.offset() for t in await feed.next()] == [9]
        assert log.asked == ["paused", "resumed"]

    playing(play, *(Record(0, n) for n in range(4)), waiting=4)


def test_a_revoked_partition_is_committed_and_forgotten():
    """Before a partition goes, what is done is committed; what is finished later commits nothing."""

    async def play(feed, log):
        first, second = await feed.next()
        first.entry.done = True
        log.revoke()
        assert log.commits == [({0: 6}, False)]
        second.entry.done = True
        log.assign(1)
        await feed.next()
        assert len(log.commits) == 1

    playing(play, Record(0, 5), Record(1, 40))


@pytest.mark.parametrize("now_ours", [None, (1,), (0, 1)])
def test_a_rebalance_after_the_first_record_leaves_it_to_the_next_owner(now_ours):
    """What was taken before a rebalance is dropped, even when the partition comes back: it is read
    again from the committed offset."""

    async def play(feed, log):
        def rebalance():
            log.revoke()
            if now_ours:
                log.assign(*now_ours)

        log.rebalance = rebalance
        log.waiting = [Record(0, 6), *([Record(1, 40)] if now_ours else [])]
        assert [t.message.offset() for t in await feed.next()] == ([40] if now_ours else [])
        log.assign(0, 1)
        log.waiting = [Record(0, 6), Record(1, 40)]
        assert [t.message.offset() for t in await feed.next()] == [6, 40]

    playing(play)


def test_a_record_of_a_partition_that_is_not_ours_is_skipped():
    """A record left over from before a rebalance stops nothing."""

    async def play(feed, log):
        assert [t.message.offset() for t in await feed.next()] == [40, 41]

    playing(play, Record(1, 40), Record(0, 5), Record(1, 41), partitions=(1,))


def test_a_lost_partition_is_not_committed():
    """What another member may own already is left alone."""

    async def play(feed, log):
        (only,) = await feed.next()
        only.entry.done = True
        log.lose()
        log.assign(0)
        await feed.next()
        assert log.commits == []

    playing(play, Record(0, 5))


def test_a_commit_that_fails_is_made_good_at_the_end():
    """A refused commit stops nothing; the position is committed again when leaving."""

    async def play(feed, log):
        (only,) = await feed.next()
        only.entry.done = True
        log.refusal = KafkaException(KafkaError(KafkaError.REBALANCE_IN_PROGRESS, "later"))
        assert await feed.next() == []
        log.refusal = None
        await feed.close()
        assert log.commits == [({0: 6}, False)]

    playing(play, Record(0, 5))


def test_errors_are_no_records_and_a_fatal_one_ends_the_process():
    """A passing error is skipped; a fatal one is a named error."""

    async def play(feed, log):
        passing = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART, "not yet")
        log.waiting = [Record(0, 0, passing), Record(0, 5)]
        assert [t.message.offset() for t in await feed.next()] == [5]
        log.waiting = [Record(0, 0, KafkaError(KafkaError._FATAL, "fenced", fatal=True))]
        with pytest.raises(KafkaRefused, match="fenced"):
            await feed.next()

    playing(play)


def test_how_far_it_is_behind_is_told_with_every_second_poll_at_most():
    """Of partitions with a place and an end that Kafka has said; not more often than once a second."""

    class Known(Log):
        asked_at = 0

        def assignment(self):
            self.asked_at += 1
            return [TopicPartition("t", n) for n in range(3)]

        def position(self, partitions):
            places = (5, 100, -1001)
            return [TopicPartition("t", p.partition, places[p.partition]) for p in partitions]

        def get_watermark_offsets(self, partition, cached):
            assert cached
            return {0: (0, 12), 1: (0, -1001), 2: (0, 7)}[partition.partition]

    log = Known()
    lag = Lag(log, "g")
    for now in (100.0, 100.5, 101.1):
        lag.tell(now)
    assert log.asked_at == 2
    assert metrics.CONSUMER_BEHIND._told["g"] == {("t", 0): 7}
    (family,) = metrics.CONSUMER_BEHIND.collect()
    told = {tuple(s.labels.values()): s.value for s in family.samples}
    assert told["g", "t", "0"] == 7
