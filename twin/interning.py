"""Parts that many twins have in common are one object: of 100,000 twins few differ in what is desired.

A twin with 18 signals is a third smaller for it. It is right because no part is changed in place but
`reported`, `applied` and `presence` (see `twin.state`), which are never common.
"""

from collections.abc import Callable
from functools import lru_cache
from sys import intern
from typing import Any, Final

from twin.wire.records import Desired, Twin, TwinCommands

_word: Final[Callable[[Any], Any]] = intern
_EMPTY: Final[dict[str, Any]] = {}
_DESIRED: Final = Desired(version=0, properties=_EMPTY, status=_EMPTY)
_COMMANDS: Final = TwinCommands(open=[])
COMMON: Final = (_EMPTY, _DESIRED, _COMMANDS)
"""Not to be changed."""


def intern_parts(twin: Twin) -> None:
    """Put the common object in the place of each part that is equal to it."""
    twin["attributes"] = _attributes(tuple(twin["attributes"].items()))
    if not twin["config"]:
        twin["config"] = _EMPTY
    if not twin["delta"]:
        twin["delta"] = _EMPTY
    if twin["desired"] == _DESIRED:
        twin["desired"] = _DESIRED
    if twin["commands"] == _COMMANDS:
        twin["commands"] = _COMMANDS
    presence, health = twin["presence"], twin["health"]
    if not health["models"]:
        health["models"] = _EMPTY
    # Words of ours, whatever they are: the parser makes a string of each.
    presence["state"], health["state"] = _word(presence["state"]), _word(health["state"])
    presence["reason"] = _word(presence["reason"])
    if "causes" in twin:
        # One record is the cause of several parts.
        twin["causes"] = {path: _word(cause) for path, cause in twin["causes"].items()}


@lru_cache(maxsize=1024)
def _attributes(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    return dict(items)
