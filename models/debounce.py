"""From exceedances to an alarm: k of n with hysteresis, one state machine for each car and model.

An alarm opens when `k` of the last `n` rows lay above the threshold, and closes only after `calm`
successive rows below `release` times the threshold; between the two it stays as it is. Pure: a
policy is frozen and travels in the artefact, its state is two integers.
"""

from dataclasses import dataclass
from typing import Any, Literal

from twin.wire.records import HealthState

Level = Literal["normal", "exceeding", "alarm"]


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
