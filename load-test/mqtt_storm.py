"""Cars that all connect at once, as after a broker's restart: bare MQTT 3.1.1 over TCP.

    python mqtt_storm.py --port 1883 --cars 18000

Each connects with a will, subscribes to its commands, says its birth at QoS 1 and is connected when
the broker has acknowledged that. `--at-once` are under way at the same time. It prints one JSON line
when all are connected; then, told so by a line on stdin, it cuts all connections without goodbye, so
that every will is sent, and prints another.
"""

import argparse
import asyncio
import json
import struct
import sys
import time
from typing import Final

_GIVE_UP_S: Final = 30.0
_CARS_AN_ADDRESS: Final = 5_000
"""An address has 28,000 ports for outgoing connections."""
_SUBSCRIBE: Final = 0x82
_BIRTH: Final = 0x33
"""PUBLISH, QoS 1, retained."""
_PUBACK: Final = 0x40


def packet(first: int, body: bytes) -> bytes:
    """An MQTT packet shorter than 16 KB."""
    size = len(body)
    length = bytes((size,)) if size < 0x80 else bytes((size & 0x7F | 0x80, size >> 7))
    return bytes((first,)) + length + body


def text(data: bytes) -> bytes:
    """A string of MQTT."""
    return struct.pack(">H", len(data)) + data


def hello(vehicle_id: bytes, session: int) -> bytes:
    """CONNECT with a will, SUBSCRIBE and the birth, in one write."""
    status = b"vehicles/" + vehicle_id + b"/status"
    will = json.dumps({"state": "offline", "session": session}).encode()
    birth = json.dumps({"state": "online", "session": session, "at": session}).encode()
    # Clean session, will of QoS 1, retained; no keep alive.
    connect = text(b"MQTT") + b"\x04\x2e\0\0" + text(vehicle_id) + text(status) + text(will)
    filters = b"".join(
        text(b"vehicles/" + vehicle_id + b"/" + leaf) + b"\x01"
        for leaf in (b"commands", b"desired")
    )
    return (
        packet(0x10, connect)
        + packet(_SUBSCRIBE, b"\0\x01" + filters)
        + packet(_BIRTH, text(status) + b"\0\x02" + birth)
    )


class Car(asyncio.Protocol):
    """One connection; `born` is done when the broker has its birth, or it broke before."""

    def __init__(self, greeting: bytes) -> None:
        self._greeting = greeting
        self._answers = b""
        self.born: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the loop."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._greeting)

    def data_received(self, data: bytes) -> None:
        """CONNACK (4 bytes), SUBACK (6 bytes), PUBACK (4 bytes)."""
        self._answers += data
        if len(self._answers) >= 14 and not self.born.done():
            self.born.set_result(self._answers[3] == 0 and self._answers[10] == _PUBACK)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the loop."""
        if not self.born.done():
            self.born.set_result(False)


async def storm(port: int, cars: int, at_once: int) -> None:
    """Connect all, say so; cut all when told, say so."""
    loop = asyncio.get_running_loop()
    session = time.time_ns() // 1_000_000
    slots = asyncio.Semaphore(at_once)
    there: list[Car] = []

    async def one(number: int) -> bool:
        async with slots:
            source = f"127.0.0.{2 + number // _CARS_AN_ADDRESS}"
            greeting = hello(b"storm-%06d" % number, session)
            try:
                async with asyncio.timeout(_GIVE_UP_S):
                    _, car = await loop.create_connection(
                        lambda: Car(greeting), "127.0.0.1", port, local_addr=(source, 0)
                    )
                    there.append(car)
                    return await car.born
            except OSError:
                return False

    begun = time.monotonic()
    born = await asyncio.gather(*(one(number) for number in range(cars)))
    seconds = time.monotonic() - begun
    _say({"connected": sum(born), "failed": cars - sum(born), "s": round(seconds, 3)})
    await loop.run_in_executor(None, sys.stdin.readline)
    for car in there:
        if car.transport is not None:
            car.transport.abort()
    _say({"cut": len(there)})


def _say(line: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--cars", type=int, default=18_000)
    parser.add_argument("--at-once", type=int, default=500)
    told = parser.parse_args()
    asyncio.run(storm(told.port, told.cars, told.at_once))


if __name__ == "__main__":
    main()
