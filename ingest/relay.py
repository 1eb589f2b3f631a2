"""What workers above 0 tell worker 0 of their shard: that they run, and what of cars Kafka has. Pure.

    worker 1, 2, ..  Relay.safe -> (every EVERY_S) Relay.messages -> broker, QoS 0 -> read -> worker 0

Where telemetry is shared no worker sees all that a car sends, so worker 0, which tells cars
(`ingest.acks`), has to hear of the rest. Each message names the worker, and its claims of sessions whose
cars ask; one without claims says no more than that the worker runs (`ingest.orphans`), and such a one
worker 0 sends, too. A message that is lost costs a car to send something again, so nothing waits for it.

They are more frequent than acks: what worker 0 knows of a session is full of gaps until it has heard
the others, and it remembers RUNS runs. Bounded: MOST messages of cars between two times of telling, and
MESSAGE_BYTES and one claim a message of ours.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeGuard

from ingest import probe
from ingest.acks import RUNS, Asked, Claim
from ingest.topology import GROUP, MOST_WORKERS
from twin.wire import codec
from twin.wire.errors import Malformed
from twin.wire.ids import check_vehicle_id

EVERY_S: Final = 0.5
MOST: Final = 50_000
"""Messages of cars at a shard that are remembered until they are told, 0.3 KB each; of more, Kafka has
them and nobody is told."""
MESSAGE_BYTES: Final = 32 << 10

_HIGHEST: Final = 2**63 - 1


class Told(NamedTuple):
    """What worker number `worker` says."""

    worker: int
    claims: list[Claim]


def topic(shard: int) -> str:
    """Where the workers of a shard tell it, at the broker of that number."""
    return probe.topic(f"{GROUP}-{shard}-workers")


class Relay:
    """What is to be told by the worker number `worker`."""

    def __init__(self, worker: int) -> None:
        self._worker = worker
        self._safe: dict[int, list[tuple[bytes, Asked]]] = {}

    def safe(self, vehicle_id: bytes, message: Asked, shard: int) -> None:
        """Kafka has a message, which came from the broker number `shard`."""
        known = self._safe.setdefault(shard, [])
        if len(known) < MOST:
            known.append((vehicle_id, message))

    def messages(self, shard: int) -> Iterator[bytes]:
        """What is to be told at a shard since the last call: one message at least, made as they are
        taken."""
        parts: list[bytes] = []
        size = 0
        for claim in _claims(self._safe.pop(shard, ())):
            vehicle_id, session, held_from, runs = claim
            flat = [number for run in runs for number in run]
            part = codec.dump([vehicle_id.decode(), session, held_from, *flat])
            parts.append(part)
            size += len(part)
            if size >= MESSAGE_BYTES:
                yield self._message(parts)
                parts, size = [], 0
        yield self._message(parts)

    def _message(self, parts: list[bytes]) -> bytes:
        return b'{"worker":%d,"safe":[%s]}' % (self._worker, b",".join(parts))


def read(payload: bytes) -> Told:
    """A message of a worker. Raises `WireError`: others may write on our topics where a broker lets
    everybody, and what they say must not end the process."""
    fields = codec.parse_object(payload)
    worker, safe = fields.get("worker"), fields.get("safe")
    if not _is_number(worker, MOST_WORKERS - 1) or not isinstance(safe, list):
        raise Malformed(f"not what a worker says: {payload[:80]!r}")
    return Told(worker, [_claim(each) for each in safe])


def _claims(safe: Iterable[tuple[bytes, Asked]]) -> Iterator[Claim]:
    """One claim for each session; the numbers that are farthest behind gaps are left out."""
    held: dict[tuple[bytes, int], int] = {}
    sequences: dict[tuple[bytes, int], list[int]] = {}
    for vehicle_id, (session, sequence, held_from) in safe:
        key = (vehicle_id, session)
        held[key] = max(held_from, held.get(key, 0))
        sequences.setdefault(key, []).append(sequence)
    for key, numbers in sequences.items():
        held_from = held[key]
        runs: list[tuple[int, int]] = []
        for number in sorted(numbers):
            if runs and number <= runs[-1][1] + 1:
                runs[-1] = runs[-1][0], number
            elif number >= held_from:
                runs.append((number, number))
        yield Claim(*key, held_from, tuple(runs[:RUNS]))


def _claim(told: object) -> Claim:
    if not isinstance(told, list) or len(told) < 3 or len(told) % 2 == 0:
        raise Malformed(f"not a claim: {str(told)[:80]}")
    vehicle_id, *numbers = told
    if not all(_is_number(number, _HIGHEST) for number in numbers):
        raise Malformed(f"not numbers of messages: {str(told)[:80]}")
    session, held_from, *flat = numbers
    runs = tuple(zip(flat[::2], flat[1::2], strict=True))
    if any(first > last for first, last in runs):
        raise Malformed(f"not runs of numbers: {str(told)[:80]}")
    return Claim(check_vehicle_id(vehicle_id).encode(), session, held_from, runs)


def _is_number(value: object, most: int) -> TypeGuard[int]:
    return type(value) is int and 0 <= value <= most
