"""The uplink holds a flooding car to its rate, and says when it rejects everything."""

import asyncio

from ingest.door import ENOUGH, Door
from ingest.outbox import Outbox
from ingest.packets import Publish
from ingest.process import Readiness
from ingest.uplink import Uplink
from tests.fake_clock import FakeClock
from twin.wire import topics

GOOD = b'{"speed":1}'


class Source:
    """A broker's client: whether what comes may have waited, and how many share its telemetry."""

    def __init__(self, sharers=1):
        self.sharers = sharers
        self.late = False

    def behind(self, now):
        return self.late


class Producer:
    """Takes records, and has none of them yet."""

    def __init__(self):
        self.topics = []

    def produce(self, topic, value, key, *, on_delivery, headers):
        self.topics.append(topic)

    def poll(self, timeout):
        return 0


def receiving(play, **limits):
    """Run `play(say, uplink, clock)` in a loop; `say(topic, payload, shard)` gives the Kafka topic."""

    async def run():
        producer, clock = Producer(), FakeClock()
        outbox = Outbox(producer)
        uplink = Uplink(
            outbox, "enforce", clock, **{"sources": {0: Source(), 1: Source()}} | limits
        )

        def say(topic, payload=GOOD, shard=0):
            uplink.receive(shard, Publish(topic, payload), None)
            return producer.topics[-1]

        try:
            return play(say, uplink, clock)
        finally:
            outbox.close()

    return asyncio.run(run())


def test_a_flooding_car_is_held_to_its_rate_and_others_are_not():
    """Ten seconds' worth at once, then the rate; on each broker by itself."""

    def play(say, uplink, clock):
        flood = "vehicles/car-1/telemetry"
        first = [say(flood) for _ in range(40)]
        assert first == [topics.TELEMETRY] * 30 + [topics.REJECTED] * 10
        assert say("vehicles/car-2/telemetry") == topics.TELEMETRY
        assert say("vehicles/car-1/outcomes", b"{}") == topics.REJECTED  # for what it says
        assert say(flood, shard=1) == topics.TELEMETRY
        clock.advance(1000)
        assert [say(flood) for _ in range(4)].count(topics.TELEMETRY) == 3
        assert uplink.rejected == {"rate_limited": 11, "missing_field": 1}
        assert uplink.received == 40 + 3 + 4

    receiving(play, rate=3)


def test_a_backlog_passes_and_the_limit_is_on_again_behind_it():
    """By what the client of the broker says of each message; another broker is none of it."""
    sources = {0: Source(), 1: Source()}

    def play(say, uplink, clock):
        flood = "vehicles/car-1/telemetry"
        sources[0].late = True
        assert {say(flood) for _ in range(3000)} == {topics.TELEMETRY}
        assert [say(flood, shard=1) for _ in range(40)].count(topics.TELEMETRY) == 30
        sources[0].late = False
        assert [say(flood) for _ in range(40)].count(topics.TELEMETRY) == 30
        sources[0].late = True
        assert say(flood) == topics.TELEMETRY
        sources[0].late = False
        assert say(flood) == topics.REJECTED

    receiving(play, rate=3, sources=sources)


def test_telemetry_that_is_dealt_out_is_held_to_a_part_of_the_rate():
    """What one process alone reads is held to the whole."""

    def play(say, uplink, clock):
        telemetry, status = "vehicles/car-1/telemetry", "vehicles/car-1/status"
        assert [say(telemetry) for _ in range(40)].count(topics.TELEMETRY) == 10
        born = b'{"state":"online","session":1,"at":2}'
        assert [say(status, born) for _ in range(40)].count(topics.PRESENCE) == 30

    receiving(play, rate=3, sources={0: Source(sharers=3)})


def test_topics_of_nobody_share_one_bucket():
    """Whatever their names; what is above says so, and costs no car anything."""

    def play(say, uplink, clock):
        for number in range(40):
            assert say(f"vehicles/no id {number}/telemetry") == topics.REJECTED
        assert uplink.rejected["rate_limited"] == 10
        assert uplink.rejected.total() == 40
        assert say("vehicles/car-1/telemetry") == topics.TELEMETRY

    receiving(play, rate=3)


def test_without_a_rate_nothing_is_held():
    """0 switches it off."""

    def play(say, uplink, clock):
        assert {say("vehicles/car-1/telemetry") for _ in range(2000)} == {topics.TELEMETRY}

    receiving(play, rate=0)


def test_totals_of_the_uplink_make_the_door_not_ready_and_ready_again():
    """As the process joins them."""

    def play(say, uplink, clock):
        readiness, door = Readiness(), Door()
        readiness.kafka, readiness.door = "", door
        door.look(0, uplink.received, uplink.rejected)
        assert readiness.faults() == {}
        for number in range(ENOUGH):
            say(f"vehicles/car-{number}/telemetry", b'{"mood":1}')
        door.look(1, uplink.received, uplink.rejected)
        assert "unknown_signal" in readiness.faults()["messages"]
        say("vehicles/car-1/telemetry")
        door.look(2, uplink.received, uplink.rejected)
        assert readiness.faults() == {}

    receiving(play)
