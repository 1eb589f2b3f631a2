"""Which trips train, calibrate and test: by trip, never by row, each kind of trip in its share.

The test part is fixed by the trips' names (a hash, so no order of recording enters) and is the same
for every seed. A seed deals the other part into training and calibration.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.carobd.reader import KINDS, Trip

TRAIN: Final = 0.5
CALIBRATE: Final = 0.2


@dataclass(frozen=True, slots=True)
class Parts:
    """Trips by their use."""

    train: list[Trip]
    calibrate: list[Trip]
    test: list[Trip]


def split(trips: Sequence[Trip], seed: int) -> Parts:
    """Half of each kind's trips to train, a fifth to calibrate, the rest to test."""
    rng = np.random.default_rng(seed)
    parts = Parts([], [], [])
    for kind in KINDS:
        ours = sorted(
            (trip for trip in trips if trip.kind == kind),
            key=lambda trip: hashlib.sha256(trip.name.encode()).digest(),
        )
        train, known = (round(share * len(ours)) for share in (TRAIN, TRAIN + CALIBRATE))
        dealt = [ours[i] for i in rng.permutation(known)]
        parts.train.extend(dealt[:train])
        parts.calibrate.extend(dealt[train:])
        parts.test.extend(ours[known:])
    return parts
