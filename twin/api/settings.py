"""Settings of the API process."""

from pydantic import Field

from twin.kit.settings import Port, RedisUrl, Settings
from twin.wire.codec import MAX_MESSAGE_BYTES


class ApiSettings(Settings):
    """Read once by `python -m twin api`."""

    api_host: str = Field(default="127.0.0.1", description="address the API listens on")
    api_port: Port = Field(default=8080, description="HTTP port of the API; 0 = any free one")
    redis_url: RedisUrl = Field(default="redis://127.0.0.1:6379/0", description="Redis of the view")
    message_max_bytes: int = Field(
        default=MAX_MESSAGE_BYTES,
        ge=1024,
        le=MAX_MESSAGE_BYTES,
        description="longest body of a request, bytes",
    )
    api_wait_s: float = Field(
        default=5.0, gt=0, le=60, description="longest wait for an owner's decision or a token, s"
    )
