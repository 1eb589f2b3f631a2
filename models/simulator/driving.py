"""The drive: where a car wants to go, and the speed its power gives it.

A regime (standing, city, highway) lasts some minutes and sets target speeds; a driver asks for the
force that closes the gap to the target; power, inertia, rolling, air and slope make the speed. In a
fleet that parks, a trip ends at a stop after `Ranges.trip_s` on average: the engine is off for a
while, and the next trip begins with the engine standing idle.
Units: t, kN, kW, m/s, s. Every array has shape (n,).
"""

import math
from typing import Final

import numpy as np

from models.simulator.arrays import Floats, Labels, Mask, relaxed, scattered
from models.simulator.ranges import Ranges

STANDING, CITY, HIGHWAY, OFF = range(4)
TARGET_S: Final = np.array([1e9, 18.0, 40.0, 1e9])  # how long a target speed holds
SLOWEST: Final = np.array([0.0, 4.0, 22.0, 0.0])
FASTEST: Final = np.array([0.0, 15.0, 34.0, 0.0])
STOP_SHARE: Final = np.array([1.0, 0.2, 0.0, 1.0])  # traffic lights
NEXT: Final = np.array([[0.0, 0.8, 1.0], [0.25, 0.25, 1.0], [0.1, 1.0, 1.0], [1.0, 1.0, 1.0]])
"""Chances of the next regime, cumulative; what follows OFF is STANDING."""

ENGINE_KW: Final = 75.0
ENGINE_SHARE: Final = 0.8  # of the traction power; the electric motor adds the rest
TOP_SPEED: Final = 40.0
STEEPEST: Final = 0.03
REACTION_S: Final = 3.0
GRAVITY: Final = 9.81


class Drive:
    """Regime, throttle and speed of n cars; `step` advances them."""

    def __init__(
        self, n: int, standing: Mask, rng: np.random.Generator, ranges: Ranges, *, parking: bool
    ) -> None:
        """`standing` (n,) bool: which cars stand at the start; the others are under way."""
        self._rng = rng
        self._mean_s = np.array(ranges.mean_s)
        self._off_s = (math.log(ranges.off_s[0]), math.log(ranges.off_s[1]))
        self._trip_s = ranges.trip_s if parking else math.inf
        self._driven_s = np.zeros(n)
        self.mass = scattered(rng, n, 1.6, 0.1 * ranges.tolerance)
        self._rolling = scattered(rng, n, 0.10, 0.005 * ranges.tolerance)  # kN per t
        self._drag = scattered(rng, n, 4.1e-4, 2e-5 * ranges.tolerance)  # kN per (m/s)^2
        self._slope = scattered(rng, n, 0.0, 0.012)
        self.regime = np.where(standing, STANDING, rng.choice([CITY, HIGHWAY], n, p=[0.55, 0.45]))
        self._left_s = rng.exponential(self._mean_s[self.regime])
        self._target = np.zeros(n)
        self._target_left_s = np.zeros(n)
        self._aim(np.arange(n))
        self.speed: Floats = self._target.copy()
        self._opening = np.zeros(n)
        self.engine_kw: Floats = np.zeros(n)
        self.motor_kw: Floats = np.zeros(n)
        self.brake_kw: Floats = np.zeros(n)

    @property
    def throttle(self) -> Floats:
        """Position of the throttle valve; it never closes entirely."""
        return 0.04 + 0.9 * self._opening

    @property
    def running(self) -> Mask:
        """Whose engine is on, shape (n,)."""
        running: Mask = self.regime != OFF
        return running

    def step(
        self, dt: float, limit: Floats, belt_kw: Floats, weak: Floats, rolling: Floats
    ) -> None:
        """Drive `dt` seconds (<= 1) at most at the share `limit` of power and top speed.

        `belt_kw` is what generators and friction take from the engine before the wheels get any,
        `weak` the share of its power that a fault takes, so that the driver opens the throttle
        wider, `rolling` the factor on rolling resistance.
        """
        self._plan(dt)
        speed, mass, running = self.speed, self.mass, self.running
        wish = (np.minimum(self._target, TOP_SPEED * limit) - speed) / REACTION_S
        resist = mass * (self._rolling * rolling + GRAVITY * self._slope) + self._drag * speed**2
        need = mass * np.clip(wish, -2.5, 1.6) + resist
        gear = speed + 1.0  # a car that stands takes force without speed
        full_kw = ENGINE_KW * (1 - weak)
        engine_kw = ENGINE_SHARE * np.maximum(need, 0) * gear + belt_kw
        opening = relaxed(self._opening, np.minimum(engine_kw / full_kw, limit), dt, 0.8)
        self._opening = np.where(running, opening, 0.0)
        self.engine_kw = full_kw * self._opening
        traction_kw = np.maximum(self.engine_kw - belt_kw, 0) / ENGINE_SHARE
        self.motor_kw = (1 - ENGINE_SHARE) * traction_kw
        brake = np.maximum(-need, 0)
        self.brake_kw = brake * speed
        faster = dt * (traction_kw / gear - resist - brake) / mass
        self.speed = np.where(running, np.maximum(speed + faster, 0), 0.0)

    def _plan(self, dt: float) -> None:
        ground = 0.012 * (dt / 30.0) ** 0.5 * self._rng.standard_normal(self._slope.size)
        self._slope = np.clip(relaxed(self._slope, 0.0, dt, 60.0) + ground, -STEEPEST, STEEPEST)
        self._left_s -= dt
        self._target_left_s -= dt
        self._driven_s += dt * (self.speed > 0.1)
        over = np.flatnonzero(self._left_s <= 0)
        if over.size:
            was = self.regime[over]
            chances = NEXT[was]
            self.regime[over] = (self._rng.random((over.size, 1)) >= chances).sum(axis=1)
            self._left_s[over] = self._rng.exponential(self._mean_s[self.regime[over]])
            self._target_left_s[over] = 0
            if math.isfinite(self._trip_s):
                self._park(over[(was == STANDING) & (self.speed[over] < 0.1)])
        due = np.flatnonzero(self._target_left_s <= 0)
        if due.size:
            self._aim(due)

    def _park(self, cars: Labels) -> None:
        """Of cars that stood after a drive, those whose trip is over switch the engine off."""
        chance = 1 - np.exp(-self._driven_s[cars] / self._trip_s)
        self._driven_s[cars] = 0
        cars = cars[self._rng.random(cars.size) < chance]
        self.regime[cars] = OFF
        self._left_s[cars] = np.exp(self._rng.uniform(*self._off_s, cars.size))

    def _aim(self, cars: Labels) -> None:
        regime = self.regime[cars]
        stop = self._rng.random(cars.size) < STOP_SHARE[regime]
        target = self._rng.uniform(SLOWEST[regime], FASTEST[regime])
        self._target[cars] = np.where(stop, 0.0, target)
        self._target_left_s[cars] = self._rng.exponential(TARGET_S[regime])
