"""Settings of the twin worker."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from twin.kit.settings import RedisUrl, Settings


class WorkerSettings(Settings):
    """Read once by `python -m twin worker`."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")
    batch_records: int = Field(default=2000, ge=1, description="most records decided in one batch")
    policy_file: Path | None = Field(default=None, description="decision policy (TOML)")
    stale_after_s: int = Field(default=120, ge=1, description="online but silent this long = stale")
    debounce_s: float = Field(
        default=5, ge=0, le=600, description="a car that is back within this time was never offline"
    )
    overdue_after_s: int = Field(
        default=60, ge=1, description="sent command without an end = overdue"
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
