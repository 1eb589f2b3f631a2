"""Cars' messages at the speed of a broker, from a process of its own: bare MQTT 3.1.1 over TCP.

    python mqtt_feeder.py --port 1883 --messages 100000 --qos 1 --from 0

Every packet is made before the first is sent. It sends only while fewer than `--window` messages are
on their way; what has arrived is told on its stdin, one number (messages in Kafka since it began) a
line, so that no broker has to drop. At QoS 1 it counts the broker's PUBACKs, too. When all is there it
ends with one JSON line.
"""

import argparse
import json
import os
import random
import selectors
import socket
import struct
import sys
from collections.abc import Iterator
from typing import Final

_CONNECTIONS: Final = 4
_CHUNK: Final = 50
"""Messages a write: large enough to be cheap, small enough to keep to the window."""
_PUBACK_BYTES: Final = 4
_SESSION: Final = 1_790_000_000_000


def _varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _packet(first: int, body: bytes) -> bytes:
    return bytes((first,)) + _varint(len(body)) + body


def _text(data: bytes) -> bytes:
    return struct.pack(">H", len(data)) + data


def payloads(first: int, count: int, cars: int) -> Iterator[tuple[bytes, bytes]]:
    """(topic, JSON) of messages `first` and on: the demo's 18 signals, numbers as sensors say them."""
    chance = random.Random(7)
    for number in range(first, first + count):
        car = b"car-%06d" % (number % cars)
        fields = {
            "event_time": _SESSION + number,
            "session": _SESSION,
            "sequence": number // cars + 1,
            "coolant_temp": round(chance.uniform(70, 110), 2),
            "intake_air_temp": round(chance.uniform(10, 40), 2),
            "intake_air_flow_speed": round(chance.uniform(60, 180), 3),
            "battery_percentage": round(chance.uniform(0.1, 1), 4),
            "battery_voltage": round(chance.uniform(200, 260), 2),
            "current_draw": round(chance.uniform(0.1, 80), 3),
            "speed": round(chance.uniform(0, 50), 3),
            "engine_vibration_amplitude": round(chance.uniform(0, 5000), 2),
            "throttle_pos": round(chance.uniform(0, 1), 4),
            "tire_pressure_1_1": chance.randint(28, 36),
            "tire_pressure_1_2": chance.randint(28, 36),
            "tire_pressure_2_1": chance.randint(28, 36),
            "tire_pressure_2_2": chance.randint(28, 36),
            "accelerometer_1_1_value": round(chance.uniform(0, 7), 4),
            "accelerometer_1_2_value": round(chance.uniform(0, 7), 4),
            "accelerometer_2_1_value": round(chance.uniform(0, 7), 4),
            "accelerometer_2_2_value": round(chance.uniform(0, 7), 4),
            "control_unit_firmware": 2000,
        }
        yield b"vehicles/" + car + b"/telemetry", json.dumps(fields).encode()


def chunks(first: int, count: int, cars: int, qos: int) -> list[list[bytes]]:
    """PUBLISH packets of each connection, in writes of `_CHUNK`. A car stays on its connection."""
    packets: list[list[bytes]] = [[] for _ in range(_CONNECTIONS)]
    for number, (topic, payload) in enumerate(payloads(first, count, cars), start=first):
        mine = packets[number % cars % _CONNECTIONS]
        packet_id = struct.pack(">H", len(mine) % 0xFFFF + 1) if qos else b""
        mine.append(_packet(0x30 | qos << 1, _text(topic) + packet_id + payload))
    return [
        [b"".join(mine[at : at + _CHUNK]) for at in range(0, len(mine), _CHUNK)] for mine in packets
    ]


def connect(port: int, name: str) -> socket.socket:
    """A connection that the broker has accepted."""
    link = socket.create_connection(("127.0.0.1", port), timeout=10)
    link.sendall(_packet(0x10, _text(b"MQTT") + b"\x04\x02" + b"\0\0" + _text(name.encode())))
    answer = link.recv(4, socket.MSG_WAITALL)
    if answer[:1] != b"\x20" or answer[3:] != b"\0":
        raise SystemExit(f"the broker refuses a connection: {answer.hex()}")
    return link


def feed(
    links: list[socket.socket], made: list[list[bytes]], count: int, qos: int, window: int
) -> None:
    """Send all, until all have arrived (stdin tells) and at QoS 1 all are acknowledged."""
    selector = selectors.DefaultSelector()
    for link in links:
        link.setblocking(True)
        selector.register(link, selectors.EVENT_READ)
    selector.register(sys.stdin.fileno(), selectors.EVENT_READ)
    order = [
        (link, chunk)
        for turn in zip(*made, strict=False)
        for link, chunk in zip(links, turn, strict=True)
    ]
    done = min(map(len, made))
    order += [
        (link, chunk) for link, mine in zip(links, made, strict=True) for chunk in mine[done:]
    ]
    answered = arrived = sent = 0
    owed = count * _PUBACK_BYTES * qos
    rest = b""
    waiting = iter(order)
    due = next(waiting, None)
    while due is not None or arrived < count or answered < owed:
        may = due is not None and sent - arrived < window
        for key, _ in selector.select(0 if may else None):
            if key.fileobj == sys.stdin.fileno():
                data = os.read(sys.stdin.fileno(), 65_536)
                if not data:
                    raise SystemExit("nobody tells any more what has arrived")
                *lines, rest = (rest + data).split(b"\n")
                arrived = int(lines[-1]) if lines else arrived
            else:
                assert isinstance(key.fileobj, socket.socket)
                answered += len(key.fileobj.recv(65_536))
        if may and due is not None:
            link, chunk = due
            link.sendall(chunk)
            sent = min(sent + _CHUNK, count)
            due = next(waiting, None)


def main() -> None:
    """Make all packets, say so, feed when told to, tell what was acknowledged."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--messages", type=int, required=True)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--cars", type=int, default=10_000)
    parser.add_argument("--qos", type=int, choices=(0, 1), required=True)
    parser.add_argument("--window", type=int, default=20_000)
    told = parser.parse_args()
    made = chunks(told.first, told.messages, told.cars, told.qos)
    links = [connect(told.port, f"feeder-{told.first}-{n}") for n in range(_CONNECTIONS)]
    print(json.dumps({"ready": told.messages}), flush=True)
    sys.stdin.readline()
    feed(links, made, told.messages, told.qos, told.window)
    print(json.dumps({"sent": told.messages, "acknowledged": told.messages * told.qos}), flush=True)


if __name__ == "__main__":
    main()
