"""Each car's own baseline on topic `baselines`, so that a restarted scorer does not learn it anew.

    trends.fresh -> record -> baselines (compacted, key vehicle) -> read at a takeover -> trends.restore

A baseline is learnt from the first rows that a scorer sees of a car in a regime (`trend`). Learnt again
after a restart it would be that of a car that may be worn by then, and hide it. It belongs to the model
whose residuals it is made of: records of another version are passed over, and a new champion that did
not run in shadow before learns every car anew.
"""

import time
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import numpy as np
import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition
from numpy.typing import NDArray

from models.features import FEATURES, REGIMES
from twin.kit import kafka, logs
from twin.wire import topics

log = logs.get(__name__)

Floats = NDArray[np.float32]
_Base = tuple[list[bool], Floats]
_READ_S: Final = 60.0
_AT_ONCE: Final = 1_000
_ABSURD: Final = 1e9  # of a residual; NaN is, too


class Known(NamedTuple):
    """What topic `baselines` says of one partition: a row a car.

    `there` (n, REGIMES): which regimes have one; `base` (n, REGIMES, FEATURES).
    """

    ids: list[str]
    there: NDArray[np.bool_]
    base: Floats


def record(version: str, vehicle_id: str, there: NDArray[np.bool_], base: Floats) -> bytes:
    """All regimes of a car that have a baseline: `there` (REGIMES,), `base` (REGIMES, FEATURES)."""
    regimes = {
        name: base[i].astype(np.float64).tolist() for i, name in enumerate(REGIMES) if there[i]
    }
    return orjson.dumps({"vehicle_id": vehicle_id, "version": version, "regimes": regimes})


def read(
    bootstrap: str, client_id: str, partitions: Iterable[int], version: str
) -> dict[int, Known]:
    """The baselines of partitions that belong to `version`, as of now. Raises `KafkaUnavailable`."""
    found: dict[int, dict[str, _Base | None]] = {number: {} for number in partitions}
    unreadable = 0
    for number, key, value in _records(bootstrap, client_id, list(found)):
        parsed = _parsed(key, value)
        if parsed is None:
            unreadable += value is not None
            continue
        said, base = parsed
        # An older record of this version is overwritten by a newer one of another.
        found[number][key.decode()] = base if said == version else None
    if unreadable:
        log.warning("records that are no baselines are passed over", count=unreadable)
    return {number: _known(cars) for number, cars in found.items()}


def _known(cars: dict[str, _Base | None]) -> Known:
    kept = {vehicle_id: one for vehicle_id, one in cars.items() if one is not None}
    shape = (len(kept), len(REGIMES))
    there = np.array([one[0] for one in kept.values()], bool).reshape(shape)
    base = np.array([one[1] for one in kept.values()], np.float32).reshape(*shape, len(FEATURES))
    return Known(list(kept), there, base)


def _parsed(key: bytes, value: bytes | None) -> tuple[str, _Base] | None:
    try:
        told = orjson.loads(value or b"null")
        version, regimes = told["version"], told["regimes"]
        if told["vehicle_id"] != key.decode() or not isinstance(version, str):
            return None
        base = np.zeros((len(REGIMES), len(FEATURES)))
        for name, values in regimes.items():
            base[REGIMES.index(name)] = np.array(values, np.float64).reshape(len(FEATURES))
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        return None
    if not (np.abs(base) < _ABSURD).all():
        return None
    return version, ([name in regimes for name in REGIMES], base.astype(np.float32))


def _records(
    bootstrap: str, client_id: str, partitions: list[int]
) -> Iterator[tuple[int, bytes, bytes | None]]:
    client: Consumer = kafka.consumer(
        bootstrap, f"{client_id}-baselines", client_id, **{"enable.partition.eof": True}
    )
    deadline = time.monotonic() + _READ_S
    try:
        client.assign([TopicPartition(topics.BASELINES, number, 0) for number in partitions])
        open_ = set(partitions)
        while open_:
            if time.monotonic() > deadline:
                raise kafka.KafkaUnavailable(
                    f"topic {topics.BASELINES} could not be read to its end within {_READ_S:.0f} s"
                )
            for message in client.consume(_AT_ONCE, 0.2):
                error = message.error()
                if error is None:
                    yield message.partition() or 0, message.key() or b"", message.value()
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard(message.partition() or 0)
                else:
                    kafka.log_error(error)
    finally:
        client.close()
