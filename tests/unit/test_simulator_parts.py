"""The physics of the parts, one coupling at a time."""

import numpy as np
import pytest

from models.simulator.battery import CAPACITY_KWH, Battery
from models.simulator.chassis import Chassis
from models.simulator.combustion import LEARNT_S, Combustion, roughness
from models.simulator.electrics import Electrics
from models.simulator.engine import COOLDOWN_S, Cooling, Engine
from models.simulator.ranges import TRAIN, Ranges

N = 8
NO = np.zeros(N)
ON, OFF = np.ones(N, dtype=bool), np.zeros(N, dtype=bool)
EXACT = Ranges(tolerance=0.0)


def of(value: float) -> np.ndarray:
    """The same value for each car."""
    return np.full(N, value)


def rng() -> np.random.Generator:
    return np.random.default_rng(1)


def drive_hot(cooling: Cooling, seconds: int, pump: float = 0.0, friction_kw: float = 0.0) -> None:
    """City driving at 25 kW."""
    for _ in range(seconds):
        cooling.step(1.0, of(12), of(25), of(friction_kw), of(2000), of(pump), NO, ON)


def test_coolant_has_thermal_memory() -> None:
    """A cold engine needs minutes to warm up, and what it is now depends on what it was."""
    cooling = Cooling(N, ON, rng(), EXACT)
    assert np.array_equal(cooling.block, cooling.ambient)
    drive_hot(cooling, 60)
    assert (cooling.block - cooling.ambient > 15).all()
    assert (cooling.block < 70).all()
    drive_hot(cooling, 600)
    assert (np.abs(cooling.block - 88) < 5).all()
    before = cooling.block.copy()
    drive_hot(cooling, 1)
    assert (np.abs(cooling.block - before) < 1).all()


def test_a_parked_engine_cools_with_its_time_constant() -> None:
    """After COOLDOWN_S, 1/e of the difference to ambient is left; the fan is still."""
    cooling = Cooling(N, OFF, rng(), EXACT)
    drive_hot(cooling, 300)
    began = cooling.block - cooling.ambient
    for _ in range(round(COOLDOWN_S)):
        cooling.step(1.0, NO, NO, NO, NO, NO, NO, OFF)
    assert (cooling.block - cooling.ambient) / began == pytest.approx(np.exp(-1), rel=1e-3)
    assert cooling.outlet == pytest.approx(cooling.block, abs=0.1)
    assert (cooling.fan < 1e-6).all()


def test_a_worn_pump_and_dry_bearings_heat_the_engine() -> None:
    """Less circulation gives a hotter outlet; friction warms a cold engine faster."""
    sound, worn, dry = (Cooling(N, ON, rng(), EXACT) for _ in range(3))
    for cooling, how in ((sound, {}), (worn, {"pump": 0.8}), (dry, {"friction_kw": 6.0})):
        drive_hot(cooling, 120, **how)
    assert (dry.block - sound.block > 3).all()
    for cooling, how in ((sound, {}), (worn, {"pump": 0.8})):
        drive_hot(cooling, 600, **how)
    assert (worn.outlet - sound.outlet > 5).all()


def test_air_follows_speed_load_and_temperature() -> None:
    """More revolutions or load draw more air, hot air is thinner, a clogged filter passes less."""

    def flow(speed: float, kw: float, intake: float, clogged: float) -> float:
        engine = Engine(N)
        for _ in range(10):
            engine.step(1.0, of(speed), of(kw), of(intake), of(clogged), ON)
        return float(engine.air_flow[0])

    base = flow(15, 15, 20, 0)
    assert flow(25, 15, 20, 0) > base
    assert flow(15, 30, 20, 0) > 1.2 * base
    assert flow(15, 15, 50, 0) == pytest.approx(base * 293 / 323, rel=1e-6)
    assert flow(15, 15, 20, 0.4) == pytest.approx(0.9 * base)


def test_an_engine_that_is_off_stands_still() -> None:
    """No speed, load or air, and the run time begins at 0 with the next start."""
    engine = Engine(N)
    for running in (ON, OFF):
        for _ in range(20):
            engine.step(1.0, NO, NO, of(20), NO, running)
        assert (engine.run_s == (20 if running is ON else 0)).all()
    assert (engine.rpm < 1).all()
    assert (engine.load == 0).all()
    assert (engine.air_flow < 0.01).all()
    assert (engine.friction_kw(of(1.0)) < 0.01).all()


def test_friction_follows_engine_speed_and_damage() -> None:
    """Sound bearings cost nothing beyond the usual; dry ones drag with speed."""
    engine = Engine(N)
    engine.step(1.0, of(20), of(20), of(20), NO, ON)
    assert (engine.friction_kw(NO) == 0).all()
    assert engine.friction_kw(of(0.5)) == pytest.approx(2.5 * 0.5 * engine.rpm / 1000)


def test_vibration_follows_shaft_engine_and_bearings() -> None:
    """Each cause adds in its own measure: a shaft with road speed, bearings with engine speed."""
    chassis = Chassis(N, rng(), EXACT)

    def shakes(speed: float, rpm: float, dry: float = 0.0, shaft: float = 0.0) -> float:
        return float(chassis.vibration(of(speed), of(rpm), NO, of(dry), of(shaft))[0])

    assert shakes(20, 2000) > shakes(10, 2000) > shakes(10, 1000)
    unbalanced = [shakes(v, 2000, shaft=0.5) - shakes(v, 2000) for v in (0, 10, 20)]
    assert unbalanced == pytest.approx([0, 171, 342])
    bearings = [shakes(10, n, dry=0.5) - shakes(10, n) for n in (1000, 2000)]
    assert bearings[1] == pytest.approx(2 * bearings[0])


def test_a_misfire_is_felt_at_idle() -> None:
    """Roughness falls with engine speed and rises with damage."""
    idle, fast = roughness(of(780), of(0.5)), roughness(of(3000), of(0.5))
    assert (idle > 5 * fast).all()
    assert roughness(of(780), NO) == pytest.approx(0)


def test_the_long_trim_learns_what_the_short_one_answers() -> None:
    """A lean mixture moves the short trim at once and the long one over LEARNT_S, then only that."""
    combustion = Combustion(N, rng(), EXACT)
    early = None
    for second in range(round(10 * LEARNT_S)):
        combustion.step(1.0, of(0.3), of(2000), of(90), of(25), of(0.5), NO)
        if second == 10:
            early = combustion.short_trim.copy()
    assert early is not None
    assert (early > 0.03).all()
    assert combustion.long_trim == pytest.approx(0.07, abs=0.002)
    assert combustion.short_trim == pytest.approx(0.0, abs=0.003)


def test_a_cold_probe_teaches_nothing() -> None:
    """Below the closed loop both trims stand still."""
    combustion = Combustion(N, rng(), TRAIN)
    before = combustion.long_trim.copy()
    for _ in range(100):
        combustion.step(1.0, of(0.3), of(2000), of(20), of(25), of(0.8), NO)
    assert np.array_equal(combustion.long_trim, before)
    assert (combustion.short_trim == 0).all()


def test_a_clogged_air_path_is_rich() -> None:
    """Its trims go the other way than those of a misfire."""
    combustion = Combustion(N, rng(), EXACT)
    for _ in range(100):
        combustion.step(1.0, of(0.3), of(2000), of(90), of(25), NO, of(0.5))
    assert (combustion.long_trim < -0.03).all()


def test_spark_comes_later_with_load_heat_and_misfires() -> None:
    """And earlier with engine speed."""

    def timing(
        load: float = 0.3, rpm: float = 2000, hot: float = 20, misfire: float = 0.0
    ) -> float:
        combustion = Combustion(N, rng(), EXACT)
        combustion.step(1.0, of(load), of(rpm), of(90), of(hot), of(misfire), NO)
        return float(combustion.timing[0])

    assert timing(rpm=3000) > timing() > timing(load=0.8)
    assert timing() > timing(hot=70)
    assert timing() - timing(misfire=1.0) == pytest.approx(7.0)


def electrics_after(rpm: float, worn: float, kw: float, seconds: int = 30) -> Electrics:
    """12 V nets with consumers of `kw`."""
    electrics = Electrics(N, of(20), rng(), Ranges(tolerance=0.0, consumers_kw=(kw, kw)))
    for _ in range(seconds):
        electrics.step(1.0, of(rpm), NO, of(worn), ON)
    return electrics


def test_supply_falls_under_load_and_wear() -> None:
    """A sound alternator holds its voltage; a worn one loses it with load and low engine speed."""
    volts = {
        (rpm, worn, kw): float(electrics_after(rpm, worn, kw).volts.mean())
        for rpm in (780, 2500)
        for worn in (0.0, 0.5, 1.0)
        for kw in (0.1, 0.5)
    }
    assert all(14.0 < volts[rpm, 0.0, kw] < 14.5 for rpm in (780, 2500) for kw in (0.1, 0.5))
    assert volts[2500, 0.5, 0.5] < volts[2500, 0.5, 0.1] < volts[2500, 0.0, 0.1]
    assert volts[780, 1.0, 0.5] < volts[2500, 1.0, 0.1] < volts[2500, 0.5, 0.1]
    assert volts[780, 1.0, 0.5] < 12.5


def test_a_missing_current_comes_out_of_the_battery() -> None:
    """Charge that is lost is the load's current less the alternator's, over time."""
    electrics = electrics_after(780, 1.0, 0.5, seconds=1)
    before = electrics.charge.copy()
    drawn = NO.copy()
    for _ in range(600):
        electrics.step(1.0, of(780), NO, of(1.0), ON)
        drawn += 18.0 + 500.0 / 14.0 - electrics.alternator_a
    assert (drawn > 0).all()
    assert (before - electrics.charge) * 60.0 * 3600.0 == pytest.approx(drawn, rel=1e-6)


def test_an_alternator_loads_the_engine() -> None:
    """More consumers, more power from the belt; none when the engine is off."""
    idle, busy = (electrics_after(2500, 0.0, kw).belt_kw.mean() for kw in (0.1, 0.5))
    assert busy - idle == pytest.approx(0.4 / 0.6, rel=0.1)
    electrics = electrics_after(2500, 0.0, 0.1)
    electrics.step(1.0, NO, NO, NO, OFF)
    assert (electrics.belt_kw == 0).all()
    assert (electrics.volts < 13).all()


def test_battery_arithmetic_closes() -> None:
    """Charge falls by the energy that current takes from the cells, and voltage by its sag."""
    battery = Battery(N, rng(), EXACT)
    before, taken = battery.charge.copy(), NO.copy()
    for _ in range(100):
        charge = battery.charge.copy()
        battery.step(1.0, of(20), NO, NO, ON)
        rest = 180.0 + 80.0 * charge
        assert battery.voltage == pytest.approx(rest - 0.15 * battery.current)
        assert battery.voltage * battery.current / 1000 == pytest.approx(20)
        taken += rest * battery.current / 1000 / 3600
    assert (before - battery.charge) * CAPACITY_KWH == pytest.approx(taken)


def test_a_parked_pack_keeps_its_charge() -> None:
    """No current flows when the car is off."""
    battery = Battery(N, rng(), TRAIN)
    before = battery.charge.copy()
    battery.step(1.0, of(20), of(5), of(0.5), OFF)
    assert np.array_equal(battery.charge, before)
    assert (battery.current == 0).all()


def test_a_leak_and_a_worn_damper_are_at_one_corner() -> None:
    """Only the car's own corner changes, whose pressure falls and whose body swings more."""
    regime = np.ones(N, dtype=np.int64)
    chassis = Chassis(N, rng(), TRAIN)
    leaking = chassis.tyres(NO) - chassis.tyres(of(0.5)) > 5
    assert leaking.sum(axis=0).tolist() == [1] * N
    assert np.array_equal(leaking.argmax(axis=0), chassis.corner)
    sound, worn = (
        np.mean(
            [
                Chassis(N, np.random.default_rng(i), TRAIN).shake(regime, of(15), NO, d, NO)
                for i in range(200)
            ],
            axis=0,
        ).sum()
        for d in (NO, of(1.0))
    )
    assert worn / sound == pytest.approx(1 + 1.5 / 4, rel=0.02)
    one = Chassis(N, np.random.default_rng(3), TRAIN)
    other = Chassis(N, np.random.default_rng(3), TRAIN)
    ratio = one.shake(regime, of(15), NO, of(1.0), NO) / other.shake(regime, of(15), NO, NO, NO)
    assert (ratio > 2).sum(axis=0).tolist() == [1] * N
