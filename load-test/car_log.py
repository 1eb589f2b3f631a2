"""The car-side log: what the cars of one process sent and what was acknowledged, as JSON lines.

The checker (`verdict.py`) holds it against Kafka and the twins; only the sender writes it.
`e` says what a line is; `v` is the vehicle id; times in ms:

    connect  v session t store            the broker accepted the connection; store = what the car can
                                          keep until acks cover it (0 = nothing)
    sent     v session sequence t         telemetry handed to the MQTT client, or only to the store while
                                          there is no connection (t = event_time)
    again    v session sequence           the same once more, out of the store
    acked    v session sequence           its PUBACK has come
    covered  v session number             an ack: Kafka has the session up to this number; let go
    dropped  v session number             the store was full; let go without an ack
    command  v id state t                 an outcome the car sent
    truth    v mode onset failure         what is really so (the last line counts; null = healthy)
"""

from pathlib import Path
from typing import Any

import orjson

FLUSH_BYTES = 256 * 1024


class CarLog:
    """An open log file. Lines are buffered until `flush` or `FLUSH_BYTES`."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab", buffering=0)
        self._buffer = bytearray()

    def write(self, event: str, vehicle_id: str, **fields: Any) -> None:
        """Add one line."""
        self._buffer += orjson.dumps({"e": event, "v": vehicle_id, **fields}) + b"\n"
        if len(self._buffer) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand all lines to the operating system."""
        buffer, self._buffer = self._buffer, bytearray()
        self._file.write(buffer)

    def close(self) -> None:
        """Flush and close."""
        self.flush()
        self._file.close()
