"""A car's configuration: the desired properties it knows, and what it confirms of them.

A car confirms only what is so: a property it knows with the value it has now (which is not the
wanted one when that was unusable, and the twin shows it as diverged). A property it does not know
is left out, and the twin shows it as pending. null (RFC 7396) takes a property back to its default.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from twin.wire.errors import Malformed

INTERVAL: Final = "telemetry_interval_s"
SHORTEST_S: Final = 0.1
LONGEST_S: Final = 3600.0


@dataclass(slots=True)
class Config:
    """The configuration of one car; `version` is the last desired one of this session."""

    default_interval_s: float
    interval_s: float
    version: int = 0

    @property
    def properties(self) -> dict[str, Any]:
        """All of it, as the car reports it."""
        return {INTERVAL: self.interval_s}

    def take(self, message: Mapping[str, Any]) -> dict[str, Any] | None:
        """Apply a message on `desired`; the properties to confirm, None when it is outdated.

        The same version may come again, because the answer was lost or to say more of it: it is
        applied and confirmed again. Raises `Malformed`.
        """
        version, delta = message.get("version"), message.get("delta")
        if type(version) is not int or version < 0 or not isinstance(delta, dict):
            raise Malformed(
                f"desired version {str(version)[:40]!r}, delta {type(delta).__name__};"
                " an integer from 0 and a JSON object are accepted"
            )
        if version < self.version:
            return None
        self.version = version
        self._apply(delta)
        return {name: value for name, value in self.properties.items() if name in delta}

    def _apply(self, delta: Mapping[str, Any]) -> None:
        wanted = delta.get(INTERVAL, self.interval_s)
        if wanted is None:
            self.interval_s = self.default_interval_s
        elif type(wanted) in (int, float) and SHORTEST_S <= wanted <= LONGEST_S:
            self.interval_s = wanted
