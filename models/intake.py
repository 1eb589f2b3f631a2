"""Kafka records of telemetry to rows in columns. Pure.

The uplink has checked every record, so what is no row comes of a writer that went round it: no
framed Avro, an unknown schema, a key that is not the vehicle's id, a partition that is not the key's
(its rows would land where the car's window is not), an impossible id or number. The twin worker sets
such a record aside, once and with its reason; here it is only passed over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from operator import attrgetter, itemgetter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models.features import INPUTS, Index
from models.scoring import Batch
from twin.native.telemetry import id_of_key
from twin.wire import codec
from twin.wire.errors import WireError
from twin.wire.ids import RESERVED
from twin.wire.partition import partition_of
from twin.wire.telemetry import Sample


@dataclass(frozen=True, slots=True)
class Rows:
    """Readable rows in order of arrival; `places` (n,) of them among the records that were read."""

    samples: list[Sample]
    places: Index

    def only(self, rows: NDArray[np.bool_]) -> "Rows":
        """These rows alone."""
        kept = np.flatnonzero(rows)
        return Rows([self.samples[i] for i in kept.tolist()], self.places[kept])

    def ids(self) -> list[str]:
        """The vehicle of each row."""
        return [sample.vehicle_id for sample in self.samples]

    def batch(self, partitions: Index | None = None, arrivals: Index | None = None) -> Batch:
        """The rows as the models take them; `partitions` and `arrivals` (n,) of the log, ms."""
        samples = self.samples
        return Batch(
            self.ids(),
            np.array([sample.event_time for sample in samples], dtype=np.int64),
            matrix(samples),
            np.array([not sample.suspect for sample in samples], dtype=bool),
            partitions,
            arrivals,
        )


def read(keys: Sequence[bytes | None], values: Sequence[bytes | None]) -> Rows:
    """The rows among records; what is none is left out."""
    samples: list[Sample] = []
    places: list[int] = []
    for place, (key, value) in enumerate(zip(keys, values, strict=True)):
        vehicle_id = None if key is None else id_of_key(key)
        if vehicle_id is None or vehicle_id in RESERVED or value is None:
            continue
        try:
            samples.append(codec.decode_sample(value, vehicle_id))
        except WireError:
            continue
        places.append(place)
    return Rows(samples, np.array(places, dtype=np.int64))


def at_home(ids: Sequence[str], partitions: Index, homes: Index, count: int) -> NDArray[np.bool_]:
    """Which rows lie on the partition of their vehicle, of `count`.

    `homes` (n,): the partition that a known vehicle was found on, -1 for an unknown one.
    """
    good: NDArray[np.bool_] = homes == partitions
    for i in np.flatnonzero(~good).tolist():
        good[i] = partition_of(ids[i].encode(), count) == partitions[i]
    return good


def matrix(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Signals (n, INPUTS) of samples; NaN where one is absent."""
    signals = np.full((len(samples), len(INPUTS)), np.nan)
    alike: dict[int, list[int]] = {}
    for i, sample in enumerate(samples):
        # Rows with the same signals share the object that names them.
        alike.setdefault(id(sample.names), []).append(i)
    for rows in alike.values():
        columns, pick = _picker(samples[rows[0]].names)
        if columns:
            picked = map(pick, map(_values, map(samples.__getitem__, rows)))
            flat = np.fromiter(chain.from_iterable(picked), np.float64, len(rows) * len(columns))
            signals[np.ix_(rows, columns)] = flat.reshape(len(rows), len(columns))
    return signals


_values: Final = attrgetter("values")


@lru_cache(maxsize=256)
def _picker(names: tuple[str, ...]) -> tuple[list[int], Callable[[Any], tuple[float, ...]]]:
    """Columns of INPUTS that are among `names`, and what takes them from a sample's values."""
    there = [(column, names.index(name)) for column, name in enumerate(INPUTS) if name in names]
    places = [place for _, place in there]
    if len(places) == 1:
        return [there[0][0]], lambda values: (values[places[0]],)
    return [column for column, _ in there], itemgetter(*places) if places else tuple
