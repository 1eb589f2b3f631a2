"""Hidden component health: how damage begins and grows. Only `Truth` says it.

Damage is a gamma process: it grows from 0 at onset to 1 at failure in random, never negative steps
(van Noortwijk 2009, "A survey of the application of gamma processes in maintenance"). Wear is the
only thing that runs on accelerated time: `acceleration` component seconds pass in one second of the
clock (1440: one second is 24 minutes of wear), while the car drives and warms up in real time. A
power limit slows wear in proportion, as a limited car carries less load through those 24 minutes.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from models.simulator.arrays import Floats, Labels, Mask
from models.simulator.faults import DAY_S, MODES, Fault, Mode, Truth

SCATTER: Final = 0.01
"""Scale of the gamma process: the time to failure scatters by about sqrt(SCATTER) = 10 %."""


class Wear:
    """Damage of n cars, at most one fault each: 0 (healthy) to 1 (failed), shape (n,)."""

    def __init__(
        self, n: int, faults: Sequence[Fault], acceleration: float, rng: np.random.Generator
    ) -> None:
        self._rng = rng
        self._mode = np.full(n, -1, dtype=np.int8)
        self._onset_s = np.full(n, np.inf)
        self._failure_s = np.full(n, np.inf)
        self._severity = np.ones(n)
        self._rate = np.zeros(n)  # expected damage per clock second at full power
        for fault in faults:
            self._check(fault, n)
            self._mode[fault.vehicle] = MODES.index(fault.mode)
            self._onset_s[fault.vehicle] = fault.onset_s
            self._severity[fault.vehicle] = fault.severity
            self._rate[fault.vehicle] = acceleration / (fault.days * DAY_S)
        self._faulty = np.flatnonzero(self._mode >= 0)
        self._by_mode = {mode: np.flatnonzero(self._mode == i) for i, mode in enumerate(MODES)}
        self.damage: Floats = np.zeros(n)

    def _check(self, fault: Fault, n: int) -> None:
        if not 0 <= fault.vehicle < n:
            raise ValueError(f"fault for car {fault.vehicle}; 0 to {n - 1} is accepted")
        if self._mode[fault.vehicle] >= 0:
            raise ValueError(f"car {fault.vehicle} has two faults; one is accepted")
        if fault.mode not in MODES:
            raise ValueError(f"fault mode {fault.mode!r}; one of {', '.join(MODES)} is accepted")
        if fault.onset_s < 0 or fault.days <= 0 or not 0 < fault.severity <= 1:
            raise ValueError(
                f"fault of car {fault.vehicle}: onset {fault.onset_s} s, {fault.days} days,"
                f" severity {fault.severity}; onset from 0, days above 0, severity above 0 and at most"
                " 1 are accepted"
            )

    @property
    def failed(self) -> Mask:
        """Which cars have failed, shape (n,)."""
        return self.damage >= 1.0

    def signs(self, mode: Mode) -> Floats:
        """What the car feels of a fault of `mode`: damage times severity, 0 elsewhere, (n,)."""
        signs = np.zeros_like(self.damage)
        index = self._by_mode[mode]
        signs[index] = self._severity[index] * self.damage[index]
        return signs

    def step(self, before_s: float, now_s: float, limit: Floats) -> Labels:
        """Wear from `before_s` to `now_s` at power `limit` (n,); the cars with onset or failure."""
        faulty = self._faulty
        onset = self._onset_s[faulty]
        began = faulty[(before_s <= onset) & (onset < now_s)]
        worn = faulty[(onset < now_s) & (self.damage[faulty] < 1.0)]
        if not worn.size:
            return began
        seconds = now_s - np.maximum(self._onset_s[worn], before_s)
        shape = self._rate[worn] * limit[worn] * seconds / SCATTER
        damage = self.damage[worn] + SCATTER * self._rng.standard_gamma(shape)
        self.damage[worn] = np.minimum(damage, 1.0)
        broke = worn[damage >= 1.0]
        self._failure_s[broke] = now_s
        return np.union1d(began, broke)

    def truth(self, vehicle: int, now_s: float) -> Truth:
        """What is so about one car now; a fault whose onset is still to come is none yet."""
        onset = float(self._onset_s[vehicle])
        if onset >= now_s:
            return Truth(vehicle, now_s, None, None, None, 1.0)
        health = 1.0 - float(self.damage[vehicle])
        failure = float(self._failure_s[vehicle])
        if health > 0:
            failure = now_s + health / float(self._rate[vehicle])
        return Truth(vehicle, now_s, MODES[self._mode[vehicle]], onset, failure, health)
