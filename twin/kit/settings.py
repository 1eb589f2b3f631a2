"""Settings: typed groups read once from the environment at the entry of a process, then frozen.

Each process derives one class from `Settings` and calls `load`. A wrong value stops the process at
start with the variable's name, its value and what is accepted; secrets are masked.
"""

import sys
from typing import Annotated, NoReturn, Self

from pydantic import Field, StringConstraints, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from twin.kit.logs import Format, Level

Port = Annotated[int, Field(ge=0, le=65535)]
Addresses = Annotated[str, StringConstraints(min_length=1)]


class Settings(BaseSettings):
    """What every process has. Field name in capitals = environment variable."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    log_level: Level = Field(default="info", description="least severe level that is logged")
    log_format: Format = Field(
        default="auto", description="json, console, or auto: console on a terminal"
    )
    health_port: Port = Field(
        default=0, description="HTTP port of /livez /readyz /metrics; 0 = none"
    )
    health_host: str = Field(default="127.0.0.1", description="address the health port listens on")
    kafka_bootstrap: Addresses = Field(
        default="127.0.0.1:9092", description="Kafka brokers, host:port,.."
    )

    @classmethod
    def load(cls) -> Self:
        """Read the environment; on a wrong value print one sentence a variable and exit with 2."""
        try:
            return cls()
        except ValidationError as error:
            _explain(cls, error)


def _explain(cls: type[BaseSettings], error: ValidationError) -> NoReturn:
    for fault in error.errors():
        name = str(fault["loc"][0])
        field = cls.model_fields.get(name)
        about = f" ({field.description})" if field and field.description else ""
        secret = "secret" in name or "password" in name or "url" in name
        value = "***" if secret else repr(fault.get("input"))
        message = fault["msg"][0].lower() + fault["msg"][1:]
        sys.stderr.write(f"setting {name.upper()}={value} is not accepted: {message}{about}\n")
    raise SystemExit(2)
