"""How a bridge process ends: in order, by a named error, or loudly."""

import asyncio
import os
import signal
import socket

import pytest

from ingest.errors import KafkaRefused
from ingest.outbox import Outbox
from ingest.process import KAFKA_SILENT_S, Readiness, first, run
from ingest.rejected import Record
from ingest.settings import IngestSettings


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_in_order(number):
    """SIGTERM and SIGINT set the stop event; what `serve` does then is awaited; exit code 0."""
    ended = []

    async def serve(readiness, stop):
        os.kill(os.getpid(), number)
        await stop.wait()
        await asyncio.sleep(0)
        ended.append("in order")

    assert run("test", IngestSettings(), serve) == 0
    assert ended == ["in order"]


def test_a_named_error_is_one_sentence_and_exit_code_1(capsys):
    """An error of ours ends the process without a stack trace."""

    async def serve(readiness, stop):
        raise KafkaRefused("no record fits")

    assert run("test", IngestSettings(log_format="json"), serve) == 1
    told = capsys.readouterr().err
    assert "no record fits" in told
    assert "Traceback" not in told


def test_a_fault_in_a_callback_ends_the_process(capsys):
    """An exception that nobody awaits does not leave a process that is half dead."""

    async def serve(readiness, stop):
        asyncio.get_running_loop().call_soon(lambda: 1 // 0)
        await stop.wait()

    with pytest.raises(ZeroDivisionError):
        run("test", IngestSettings(log_format="json"), serve)
    assert "unhandled in the event loop" in capsys.readouterr().err


def test_a_taken_health_port_is_named(capsys):
    """The sentence names the setting and the address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert run("test", IngestSettings(health_port=port), lambda *_: None) == 1
    told = capsys.readouterr().err
    assert f"HEALTH_PORT 127.0.0.1:{port}" in told
    assert "Traceback" not in told


def test_the_first_to_end_decides_and_the_others_are_cancelled():
    """`first` raises what the first raised, and leaves nothing running."""

    async def play():
        lasting = asyncio.ensure_future(asyncio.Event().wait())
        failing = asyncio.get_running_loop().create_future()
        failing.set_exception(KafkaRefused("first"))
        with pytest.raises(KafkaRefused):
            await first(lasting, failing)
        assert lasting.cancelled()

    asyncio.run(play())


class Reports:
    """A Kafka producer that reports a delivery when the test says so."""

    def __init__(self):
        self.waiting = []

    def produce(self, topic, value, key, *, on_delivery, headers):
        self.waiting.append(on_delivery)

    def poll(self, timeout):
        return 0

    def acknowledge(self):
        self.waiting.pop(0)(None, None)


@pytest.fixture
def clock(monkeypatch):
    """A monotonic clock that the test moves; the outbox and readiness read it."""
    clock = FakeMonotonic()
    monkeypatch.setattr("ingest.outbox.monotonic", clock)
    return clock


class FakeMonotonic:
    """Seconds, moved by hand."""

    def __init__(self):
        self.now = 5_000.0

    def __call__(self):
        return self.now


def test_kafka_that_acknowledges_nothing_makes_the_process_not_ready_until_it_does(clock):
    """Not ready after a while of silence with records under way; ready again by itself."""

    async def play():
        kafka, record = Reports(), Record("telemetry", b"car-1", b"", [])
        outbox = Outbox(kafka)
        readiness = Readiness(clock)
        readiness.kafka, readiness.outbox = "", outbox
        try:
            clock.now += 10 * KAFKA_SILENT_S
            assert readiness.faults() == {}, "nothing is under way"
            outbox.send(record, lambda: None)
            assert readiness.faults() == {}, "it was sent just now"
            clock.now += KAFKA_SILENT_S - 1
            outbox.send(record, lambda: None)
            assert readiness.faults() == {}
            clock.now += 1
            assert readiness.faults() == {"kafka": "nothing acknowledged for 10 s, 2 under way"}
            kafka.acknowledge()
            assert readiness.faults() == {}, "Kafka moves, if slowly"
            clock.now += KAFKA_SILENT_S
            assert "1 under way" in readiness.faults()["kafka"]
            kafka.acknowledge()
            assert readiness.faults() == {}
        finally:
            outbox.close()

    asyncio.run(play())


def test_kafka_that_was_never_reached_is_named_first():
    """Before the topics are known there is no outbox to ask."""
    assert Readiness().faults() == {"kafka": "not reached yet"}
