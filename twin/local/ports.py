"""Free ports to take, and a clear word when a wanted one is taken."""

import errno
import os
import random
import socket
import sys
from collections import deque
from typing import Final

from twin.local.errors import LocalError, PortTaken

HOST: Final = "127.0.0.1"
# Below Linux' range for outgoing connections (32768 up): a port picked here is not given to some
# client's socket before its server binds it.
_FREE_RANGE: Final = range(20_000, 30_000)
_TRIES: Final = 200
# A port is free until its server binds it, seconds later. Meanwhile a name in Linux' abstract namespace
# keeps other processes from picking it, too; it goes with this process.
_PICKED: Final[deque[int]] = deque()
_REMEMBERED: Final = 64


def is_free(port: int) -> bool:
    """Whether a server could listen on 127.0.0.1:`port` now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do it: connections of a former server in TIME_WAIT are no obstacle.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def _picked_first(port: int) -> bool:
    """Whether no other process has picked this port a moment ago."""
    if sys.platform != "linux":
        return True
    name = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        name.bind(f"\0cartwin-port-{port}")
    except OSError:
        name.close()
        return False
    _PICKED.append(name.detach())
    if len(_PICKED) > _REMEMBERED:
        os.close(_PICKED.popleft())
    return True


class PortPicker:
    """Hands out ports, each at most once."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def free(self) -> int:
        """Any port that is free now and was not handed out before."""
        for _ in range(_TRIES):
            port = random.choice(_FREE_RANGE)
            if port not in self._taken and is_free(port) and _picked_first(port):
                self._taken.add(port)
                return port
        raise LocalError(
            f"No free port was found on {HOST} between {_FREE_RANGE.start} and {_FREE_RANGE.stop}:"
            " stop some servers or name the ports."
        )

    def claim(self, wanted: int, part: str, remedy: str) -> int:
        """`wanted`, or a free port if it is 0; raises `PortTaken` naming `part` and `remedy`."""
        if wanted == 0:
            return self.free()
        if wanted in self._taken or not is_free(wanted):
            raise PortTaken(
                f"Port {wanted} on {HOST} is taken, so {part} cannot start there: {remedy}."
            )
        self._taken.add(wanted)
        return wanted
