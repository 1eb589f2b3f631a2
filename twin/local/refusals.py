"""Whom a broker refused to write to a topic, counted from its log: `cartwin broker refused LOG`.

A car with MQTT 5 reads it in the PUBACK (0x87). Mosquitto tells it nowhere but in its log, and there
only with `--trace`, which is a line for each packet; HiveMQ's extension writes a line a refusal.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

_LINES: Final = (
    re.compile(r"Denied PUBLISH from (?P<client>.+?) \(d[01], q[012], "),
    re.compile(r"^refused: (?P<client>\S+) wrote "),
)


def count(lines: Iterable[str]) -> Counter[str]:
    """Refused messages by client id, from lines of Mosquitto's or HiveMQ's log."""
    found: Counter[str] = Counter()
    for line in lines:
        for pattern in _LINES:
            match = pattern.search(line)
            if match:
                found[match["client"]] += 1
    return found
