"""Cars that drive, wear and fail: numpy only, seeded, vectorised over cars, without TensorFlow.

Simple but coupled physics (module by module: wear, driving, engine, battery, chassis), read through
noisy sensors by `Cars`; `history` is a past to train on. The hidden truth leaves only as `Truth`.
"""

from models.simulator.cars import ACCELERATION, LIMP, SIGNALS, Cars, Rows
from models.simulator.faults import DAYS_TO_FAILURE, MODES, Fault, Mode, Truth, draw_faults
from models.simulator.history import FAILURE_SHARE, Block, history, history_steps
from models.simulator.ranges import SHIFTED, TRAIN, Ranges

__all__ = [
    "ACCELERATION",
    "DAYS_TO_FAILURE",
    "FAILURE_SHARE",
    "LIMP",
    "MODES",
    "SHIFTED",
    "SIGNALS",
    "TRAIN",
    "Block",
    "Cars",
    "Fault",
    "Mode",
    "Ranges",
    "Rows",
    "Truth",
    "draw_faults",
    "history",
    "history_steps",
]
