"""Settings of the processes in models/: read once from the environment at the entry."""

import socket
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from models.store import Location, location
from twin.kit.registry_settings import SchemaRegistry
from twin.kit.settings import Settings


def _store(text: str) -> str:
    location(text, Path())
    return text


class SimulateSettings(Settings, SchemaRegistry):
    """`python -m models simulate`."""


class StoreSettings(Settings):
    """What every command that touches stored models has."""

    model_store: Annotated[str, StringConstraints(min_length=1), AfterValidator(_store)] = Field(
        default=".cartwin/models",
        description="where trained models lie, shared by all: a folder, or s3://.., gs://..",
    )
    model_cache: Path = Field(
        default=Path(".cartwin/model-cache"),
        description="folder for copies of models from a store that is no folder",
    )

    def location(self, store: str | None = None) -> Location:
        """The store, or another one that a command names."""
        return location(self.model_store if store is None else store, self.model_cache)


class TrainerSettings(StoreSettings, SchemaRegistry):
    """`python -m models train` and `evaluate`."""

    trainer_cache: Path = Field(
        default=Path(".cartwin/cache"),
        description="folder for what was read from Kafka, so that the same is not read again",
    )
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
        default=200_000, ge=1, description="vehicles held by a scorer, at most"
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
    scorer_drift_s: float = Field(
        default=600,
        gt=0,
        description="how long rows are gathered before they are judged for drift, s",
    )
    score_all: bool = Field(
        default=False, description="say every score, also what is no news; for tests"
    )
