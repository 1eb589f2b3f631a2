"""Settings of the processes in models/: read once from the environment at the entry."""

import socket
from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints

from twin.kit.registry_settings import SchemaRegistry
from twin.kit.settings import Settings


class SimulateSettings(Settings, SchemaRegistry):
    """`python -m models simulate`."""


class StoreSettings(Settings):
    """What every command that touches stored models has."""

    model_store: Path = Field(
        default=Path(".cartwin/models"), description="folder of trained models, shared by all"
    )


class TrainerSettings(StoreSettings, SchemaRegistry):
    """`python -m models train` and `evaluate`."""

    trainer_threads: int = Field(default=2, ge=1, le=64, description="TensorFlow's threads")


class ScorerSettings(StoreSettings, SchemaRegistry):
    """`python -m models scorer`."""

    scorer_id: Annotated[str, StringConstraints(min_length=1, max_length=100)] = Field(
        default_factory=socket.gethostname, description="this scorer's name on topic model-status"
    )
    scorer_threads: int = Field(
        default=1, ge=1, le=64, description="TensorFlow's threads; scale by partitions instead"
    )
    scorer_batch: int = Field(
        default=1000, ge=1, le=10_000, description="records taken at once, at most"
    )
    scorer_wait_ms: int = Field(
        default=50, ge=1, le=1000, description="how long a batch waits to fill, ms"
    )
    scorer_vehicles: int = Field(
        default=20_000, ge=1, description="vehicles held per partition, at most"
    )
    scorer_restore_minutes: float = Field(
        default=10,
        ge=0,
        description="how far back a taken-over partition is read to rebuild its windows",
    )
    score_deadband: float = Field(
        default=0.25, gt=0, description="a score is said when it moved by this share"
    )
    score_heartbeat_s: float = Field(
        default=30, gt=0, description="an unchanged score is said again after this event time, s"
    )
