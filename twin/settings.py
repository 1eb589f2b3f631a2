"""Settings of the twin worker."""

from pathlib import Path

from pydantic import Field

from twin.kit.settings import RedisUrl, Settings


class WorkerSettings(Settings):
    """Read once by `python -m twin worker`."""

    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")
    batch_records: int = Field(default=2000, ge=1, description="most records decided in one batch")
    policy_file: Path | None = Field(default=None, description="decision policy (TOML)")
    stale_after_s: int = Field(default=120, ge=1, description="online but silent this long = stale")
    overdue_after_s: int = Field(
        default=60, ge=1, description="sent command without an end = overdue"
    )
    worker_id: str = Field(
        default="",
        description="stable name of this worker (pod name): restarted under it within 10 s it gets"
        " its partitions back at once; empty = a new member each time",
    )
