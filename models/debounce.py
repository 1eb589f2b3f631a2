"""From exceedances to an alarm: k of n with hysteresis, one state machine for each car and model.

An alarm opens when `k` of the last `n` rows lay above the threshold, and closes only after `calm`
successive rows below `release` times the threshold; between the two it stays as it is. Pure: a
policy is frozen and travels in the artefact, its state is two integers. `Debounced` is one car,
`Debounces` the same law for many at once.
"""

from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from twin.wire.records import HealthState

Level = Literal["normal", "exceeding", "alarm"]
LEVELS: Final[tuple[Level, ...]] = get_args(Level)


@dataclass(frozen=True, slots=True)
class Debounce:
    """`k` of `n` rows above the threshold open an alarm, `calm` rows below `release` x close it."""

    k: int
    n: int
    calm: int
    release: float

    def __post_init__(self) -> None:
        if not (1 <= self.k <= self.n <= 64 and self.calm >= 1 and 0 < self.release <= 1):
            raise ValueError(
                f"debounce {self.k} of {self.n}, calm {self.calm}, release {self.release}:"
                " 1 <= k <= n <= 64, calm >= 1 and 0 < release <= 1 are accepted"
            )

    def start(self) -> "Debounced":
        """The state of a car that was never scored."""
        return Debounced(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Debounce":
        """The policy as an artefact's manifest keeps it."""
        return cls(int(value["k"]), int(value["n"]), int(value["calm"]), float(value["release"]))


class Debounced:
    """One car's state: the last n rows as bits, and how many calm rows in succession."""

    __slots__ = ("_bits", "_calm", "alarm", "policy")

    def __init__(self, policy: Debounce) -> None:
        self.policy = policy
        self.alarm = False
        self._bits = 0
        self._calm = 0

    def push(self, score: float, threshold: float) -> Level:
        """Take one more row's score; where the car stands now."""
        policy = self.policy
        above = score > threshold
        self._bits = (self._bits << 1 | above) & (1 << policy.n) - 1
        self._calm = self._calm + 1 if score < policy.release * threshold else 0
        if self._bits.bit_count() >= policy.k:
            self.alarm = True
        elif self.alarm and self._calm >= policy.calm:
            self.alarm = False
        if self.alarm:
            return "alarm"
        return "exceeding" if above else "normal"

    def forget_rows(self, policy: Debounce) -> None:
        """Keep the alarm, forget the rows: another model's exceedances do not count for this one."""
        self.policy = policy
        self._bits = 0
        self._calm = 0


class Debounces:
    """`Debounced` for cars in numbered slots; arrays grow with the highest slot seen."""

    def __init__(self, policy: Debounce) -> None:
        self.policy = policy
        self.alarm = np.zeros(0, bool)
        self._bits = np.zeros(0, np.uint64)
        self._calm = np.zeros(0, np.int32)

    def room(self, slots: int) -> None:
        """Have at least so many slots."""
        if slots > self.alarm.size:
            for name in ("alarm", "_bits", "_calm"):
                held = getattr(self, name)
                more = max(slots - held.size, held.size)
                setattr(self, name, np.concatenate([held, np.zeros(more, held.dtype)]))

    def push(
        self, slots: NDArray[np.int64], scores: NDArray[np.float64], threshold: float
    ) -> NDArray[np.int8]:
        """One more row's score (n,) for each of the different `slots` (n,): indices into LEVELS."""
        policy = self.policy
        above = scores > threshold
        mask = np.uint64((1 << policy.n) - 1)
        bits = (self._bits[slots] << np.uint64(1) | above.astype(np.uint64)) & mask
        calm = np.where(scores < policy.release * threshold, self._calm[slots] + 1, 0)
        count = np.unpackbits(bits.view(np.uint8).reshape(-1, 8), axis=1).sum(axis=1)
        alarm = (count >= policy.k) | (self.alarm[slots] & (calm < policy.calm))
        self._bits[slots], self._calm[slots], self.alarm[slots] = bits, calm, alarm
        level: NDArray[np.int8] = np.where(alarm, 2, above).astype(np.int8)
        return level

    def forget(self, slots: NDArray[np.int64]) -> None:
        """These slots belong to other cars from now on."""
        slots = slots[slots < self.alarm.size]
        for held in (self.alarm, self._bits, self._calm):
            held[slots] = 0

    def alarms_of(self, former: "Debounces") -> None:
        """Keep another model's alarms; its rows do not count for this one."""
        self.room(former.alarm.size)
        self.alarm[: former.alarm.size] |= former.alarm


def health(autoencoder: Level, lstm: Level | None) -> HealthState:
    """The car's state from both models; `lstm` is None while its window is not full.

    Alarm needs a debounced model; one raw exceedance of either is a warning. A car whose window is
    still filling is judged by the autoencoder alone, and is never called normal on that ground.
    """
    if "alarm" in (autoencoder, lstm):
        return "alarm"
    if lstm is None:
        return "insufficient_data"
    return "normal" if autoencoder == lstm == "normal" else "warning"
