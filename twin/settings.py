"""Settings of the twin worker.

    environment -> WorkerSettings -> Limits, Context (`twin.worker`) -> the pure core, as arguments

What a twin may hold (law 9) can be set lower at will. Upwards it is bounded by what the doors and the
wire let through (key, depth, attributes, arguments, life of a command), and by what must fit a record
of `twins` together with the outputs of one batch (document, open commands; `twin.outbox`): a new session
brings all open commands of a car back to it at once.
"""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from twin.kit.registry_settings import SchemaRegistry
from twin.kit.settings import RedisUrl, Settings

_HOUR_S: Final = 3600
_WEEK_S: Final = 7 * 24 * _HOUR_S
_KIB: Final = 1024


class WorkerSettings(Settings, SchemaRegistry):
    """Read once by `python -m twin worker`."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")
    batch_records: int = Field(default=2000, ge=1, description="most records decided in one batch")
    policy_file: Path | None = Field(default=None, description="decision policy (TOML)")
    stale_after_s: int = Field(
        default=120, ge=1, description="online but silent this long = stale, s"
    )
    debounce_s: float = Field(
        default=5, ge=0, le=600, description="a car that is back within this time was never offline"
    )
    overdue_after_s: int = Field(
        default=60, ge=1, description="sent command without an end = overdue"
    )
    auto_create: bool = Field(
        default=True,
        description="a vehicle's first message makes its twin; false: only PUT attributes does",
    )
    desired_ttl_s: int = Field(
        default=_WEEK_S,
        ge=1,
        le=52 * _WEEK_S,
        description="a desired property unconfirmed this long = expired, s",
    )
    document_max_bytes: int = Field(
        default=64 * _KIB,
        ge=4 * _KIB,
        le=256 * _KIB,
        description="longest twin document, bytes of JSON",
    )
    depth_max: int = Field(
        default=8, ge=1, le=8, description="most levels of desired, reported and arguments"
    )
    key_max_bytes: int = Field(default=128, ge=1, le=128, description="longest key, bytes")
    attributes_max: int = Field(default=32, ge=1, le=32, description="most attributes of a twin")
    attribute_max_bytes: int = Field(
        default=256, ge=1, le=256, description="longest text of an attribute, bytes"
    )
    open_commands_max: int = Field(
        default=50, ge=1, le=50, description="most commands of a car that have not ended"
    )
    # A twin is deleted in one record with all of its entries, about 200 bytes each.
    day_commands_max: int = Field(
        default=2_000,
        ge=50,
        le=10_000,
        description="most commands of a car that are open or ended within 24 h",
    )
    command_args_max_bytes: int = Field(
        default=32 * _KIB,
        ge=1,
        le=32 * _KIB,
        description="longest arguments of a command, bytes of JSON",
    )
    command_ttl_max_s: int = Field(
        default=_WEEK_S, ge=1, le=_WEEK_S, description="longest life of a command, s"
    )
    command_ttl_s: int = Field(
        default=_HOUR_S,
        ge=1,
        validate_default=True,
        description="life of a command that names none, s",
    )
    worker_id: str = Field(
        default="",
        description="stable name of this worker (pod name): restarted under it within"
        " SESSION_TIMEOUT_S it gets its partitions back at once; empty = a new member each time",
    )
    store: Literal["memory", "rocksdb"] = Field(
        default="memory",
        description="rocksdb keeps a copy of the twins in STORE_DIR: a restart reads only what is new",
    )
    store_dir: Path = Field(
        default=Path(".cartwin-worker"), description="folder of the copy; one worker's alone"
    )
    session_timeout_s: float = Field(
        default=6,
        ge=1,
        description="a worker unheard of for so long loses its partitions (the broker's"
        " group.min.session.timeout.ms, 6 s unless set, is the least accepted)",
    )

    @field_validator("command_ttl_s")
    @classmethod
    def _within_longest(cls, ttl_s: int, info: ValidationInfo) -> int:
        most = info.data.get("command_ttl_max_s")
        if most is not None and ttl_s > most:
            raise ValueError(f"with COMMAND_TTL_MAX_S {most}, at most {most} is accepted")
        return ttl_s
