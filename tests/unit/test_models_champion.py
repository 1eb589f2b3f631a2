"""The thread that follows the registry: nothing but `stop` ends it."""

import threading
import time
from typing import Any

from models.champion import ModelKeeper
from models.errors import ArtefactRefused
from models.registry import _read


class Watch:
    """A registry that says what it is given, then nothing; exceptions are raised."""

    def __init__(self, *said: Any) -> None:
        self._said = list(said)
        self.closed = threading.Event()

    def poll(self, timeout_s: float) -> Any:
        if not self._said:
            time.sleep(0.001)
            return {}, True
        said = self._said.pop(0)
        if isinstance(said, Exception):
            raise said
        return said, True

    def close(self) -> None:
        self.closed.set()


def record(version: str) -> dict[str, Any]:
    return {"name": "engine", "version": version, "uri": "u", "sha256": "s"}


def refusing(wanted: Any) -> Any:
    raise ArtefactRefused(f"{wanted['version']} is no good")


def until(true: Any) -> None:
    deadline = time.monotonic() + 10
    while not true():
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.002)


def test_what_breaks_in_a_round_is_said_and_the_next_round_is_followed() -> None:
    """A registry that cannot be read for a moment does not leave the old model in silence for ever."""
    refused: list[str] = []
    watch: Any = Watch(RuntimeError("the broker is gone"), {"champion": record("engine-2")})
    keeper = ModelKeeper(watch, refusing, lambda wanted, role, why: refused.append(why))
    keeper.start()
    try:
        until(lambda: keeper.fault)
        assert "the broker is gone" in keeper.fault
        until(lambda: refused)
        assert refused == ["engine-2 is no good"]
        until(lambda: not keeper.fault)
    finally:
        keeper.stop()
    assert watch.closed.is_set()


def test_what_cannot_be_announced_does_not_end_it_either() -> None:
    """The refusal is told through Kafka, which may be away."""
    told: list[str] = []

    def announce(wanted: Any, role: Any, why: str) -> None:
        told.append(why)
        if len(told) == 1:
            raise KeyError("name")

    watch: Any = Watch({"champion": record("engine-1")}, {"champion": record("engine-2")})
    keeper = ModelKeeper(watch, refusing, announce)
    keeper.start()
    try:
        until(lambda: len(told) >= 2)
        assert told[-1] == "engine-2 is no good"
    finally:
        keeper.stop()


def test_a_registration_has_all_that_its_refusal_needs() -> None:
    """Else it is none."""
    whole = b'{"name":"engine","version":"v","uri":"u","sha256":"s"}'
    assert _read(whole) is not None
    for broken in (
        b"null", b"[]", b"7", b"{", b"\xff", None, b'{"version":"v","uri":"u","sha256":"s"}',
        b'{"name":1,"version":"v","uri":"u","sha256":"s"}',
        b'{"name":"engine","version":"v","uri":"u","sha256":"s","previous":{}}',
    ):  # fmt: skip
        assert _read(broken) is None
