"""How a bridge process ends: in order, by a named error, or loudly."""

import asyncio
import os
import signal
import socket

import pytest

from ingest.errors import KafkaRefused
from ingest.process import first, run
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
