"""Cars that drive, wear and fail: numpy only, seeded, vectorised over cars, without TensorFlow.

Simple but coupled physics (module by module: wear, driving, engine, combustion, electrics, battery,
chassis), read through noisy sensors by `Cars`; `history` is a past to train on. The hidden truth
leaves only as `Truth`, faults and what they show are in `faults`, what varies is in `ranges`.
"""

from models.simulator.cars import ACCELERATION, LIMP, SIGNALS, Cars, Rows
from models.simulator.delivery import Delivery
from models.simulator.faults import ENGINE_MODES, MODES, Fault, Mode, Truth, draw_faults
from models.simulator.history import DROPOUT, FAILURE_SHARE, Block, history, history_steps
from models.simulator.ranges import DAYS_TO_FAILURE, SHIFTED, TRAIN, Ranges

__all__ = [
    "ACCELERATION",
    "DAYS_TO_FAILURE",
    "DROPOUT",
    "ENGINE_MODES",
    "FAILURE_SHARE",
    "LIMP",
    "MODES",
    "SHIFTED",
    "SIGNALS",
    "TRAIN",
    "Block",
    "Cars",
    "Delivery",
    "Fault",
    "Mode",
    "Ranges",
    "Rows",
    "Truth",
    "draw_faults",
    "history",
    "history_steps",
]
