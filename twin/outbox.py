"""Outputs that travel with the state (law 3): what a batch still has to tell about one vehicle.

    decide -> Outputs -> header of the twin's changelog record -> told -> input offsets committed
                              | killed in between
                              +-> the next owner finds it, and tells it again

The changelog record of a twin is the only commit point of a batch for a vehicle: its ledger entries,
changes, downlinks, replies and what was rejected for its state follow from it, so a former owner tells
nobody what it wrongly thinks. `at` names the input record that caused an output. If the offset
committed for that input is not behind it, nobody knows whether the output was told, so it is told
again; ids are the same, so whoever reads them can drop repeats.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import orjson

MAX_BYTES: Final = 512 * 1024
"""A batch is cut when the outputs of one vehicle reach this. One record adds at most what 50 open
commands of 32 KiB need twice, or a rejected original of 1 MiB in base64 and of its headers 64 KiB, so a
header stays below `topics.TWINS_MAX_BYTES`."""

Kind = Literal["ledger", "changes", "downlink", "replies", "rejected"]


@dataclass(frozen=True, slots=True)
class Output:
    """One record to be written: JSON `value` (None = a tombstone) under `key`."""

    kind: Kind
    key: str
    value: bytes | None
    revision: int
    """Of the twin when it was decided; orders ledger entries."""


@dataclass(slots=True)
class Outbox:
    """The outputs of one vehicle in one batch, in order, by the input record that caused them."""

    causes: list[tuple[str, int, list[Output]]] = field(default_factory=list)
    size: int = 0

    def add(self, topic: str, offset: int, outputs: list[Output]) -> None:
        """What one applied record brought about."""
        self.causes.append((topic, offset, outputs))
        self.size += sum(len(output.value or b"") + len(output.key) for output in outputs)

    def dump(self) -> bytes:
        """As the header of a changelog record."""
        return orjson.dumps(
            [
                {
                    "at": [topic, offset],
                    "out": [
                        [
                            o.kind,
                            o.key,
                            o.revision,
                            None if o.value is None else orjson.Fragment(o.value),
                        ]
                        for o in outputs
                    ],
                }
                for topic, offset, outputs in self.causes
            ]
        )


def read(outbox: bytes, committed: Mapping[str, int]) -> Iterator[tuple[Output, bool]]:
    """Outputs in a header, in order, and whether each is untold: `committed` = topic -> next offset.

    What is told is left out, but for entries of the ledger: topics are committed apart, so the newest
    word on an entry may be told while an older one is not.
    """
    causes: list[dict[str, Any]] = orjson.loads(outbox)
    for cause in causes:
        topic, offset = cause["at"]
        left = offset >= committed.get(topic, 0)
        for kind, key, revision, value in cause["out"]:
            if left or kind == "ledger":
                yield (
                    Output(kind, key, None if value is None else orjson.dumps(value), revision),
                    left,
                )


def untold(outbox: bytes, committed: Mapping[str, int]) -> Iterator[Output]:
    """Outputs in a header whose input is not committed."""
    return (output for output, left in read(outbox, committed) if left)
