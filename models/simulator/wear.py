"""Hidden component health: how damage begins and grows. Only `Truth` says it.

Damage is a gamma process: it grows from 0 at onset to 1 at failure in random, never negative steps
(van Noortwijk 2009, "A survey of the application of gamma processes in maintenance"). Wear is the
only thing that runs on accelerated time: `acceleration` component seconds pass in one second of the
clock (1440: one second is 24 minutes of wear), while the car drives and warms up in real time. A
power limit slows wear in proportion, as a limited car carries less load through those 24 minutes;
a car whose engine is off does not wear.

So "simulated time" is the component's: a warning 15 s of the clock before the failure comes 6 h of
simulated time before it at acceleration 1440, and false alarms per 100 days are per 6000 s of the
clock. Rows, though, are as many as the clock gives: a row of a second stands for 24 minutes of wear,
so a lead of 6 h rests on 15 rows. At acceleration 1 both times are the same.
"""

from collections.abc import Sequence

import numpy as np

from models.simulator.arrays import Floats, Labels, Mask
from models.simulator.faults import DAY_S, ENGINE_MODES, MODES, Fault, Mode, Truth

Signs = dict[Mode, Floats]
"""Mode -> how strongly each car shows it, 0 to 1, shape (n,)."""


class Wear:
    """Damage of n cars, at most one fault each: 0 (healthy) to 1 (failed), shape (n,)."""

    def __init__(
        self,
        n: int,
        faults: Sequence[Fault],
        acceleration: float,
        rng: np.random.Generator,
        scatter: float,
    ) -> None:
        """`scatter`: scale of the gamma process."""
        self._rng = rng
        self._scatter = scatter
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
        self._stops = np.isin(self._mode, [MODES.index(mode) for mode in ENGINE_MODES])
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
    def limping(self) -> Mask:
        """Which cars have failed in a way that leaves them little power, shape (n,)."""
        return (self.damage >= 1.0) & self._stops

    def signs(self) -> Signs:
        """What the cars feel of their faults: damage times severity, 0 without that fault, (n,)."""
        felt = self._severity * self.damage
        signs: Signs = {}
        for mode, cars in self._by_mode.items():
            signs[mode] = np.zeros_like(felt)
            signs[mode][cars] = felt[cars]
        return signs

    def step(self, before_s: float, now_s: float, load: Floats) -> Labels:
        """Wear from `before_s` to `now_s` at `load` (n,): power limit, 0 where the engine is off.

        Returns the cars with onset or failure.
        """
        faulty = self._faulty
        onset = self._onset_s[faulty]
        began = faulty[(before_s <= onset) & (onset < now_s)]
        worn = faulty[(onset < now_s) & (self.damage[faulty] < 1.0) & (load[faulty] > 0)]
        if not worn.size:
            return began
        seconds = now_s - np.maximum(self._onset_s[worn], before_s)
        shape = self._rate[worn] * load[worn] * seconds / self._scatter
        damage = self.damage[worn] + self._scatter * self._rng.standard_gamma(shape)
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
        mode, severity = MODES[self._mode[vehicle]], float(self._severity[vehicle])
        return Truth(vehicle, now_s, mode, onset, failure, health, severity)
