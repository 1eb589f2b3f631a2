"""Peer: cartwin's worker without its Redis view, which no other peer has. All else is the same process.

    python cartwin_table.py          (settings as those of `python -m twin worker`)

What is left of the view is making its rows; the difference to `cartwin` is what telling Redis costs.
"""

import asyncio
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twin.kit import logs
from twin.packed import Packed
from twin.settings import WorkerSettings
from twin.view import Shown, View
from twin.wire.records import Command
from twin.worker import run


class NoView(View):
    """Shows nobody anything."""

    async def claim(
        self,
        partition: int,
        epoch: int,
        twins: Mapping[str, Packed],
        commands: Mapping[str, Command],
    ) -> None:
        """Nothing to own."""

    def release(self, partitions: Iterable[int]) -> None:
        """Nothing to give back."""

    async def write(self, shown: Shown) -> None:
        """Nobody looks."""

    async def run(self, durable: Callable[[], Any]) -> None:
        """Nothing is pending."""
        await asyncio.Event().wait()


def main() -> int:
    """Run until stopped."""
    settings = WorkerSettings.load()
    logs.configure("worker", settings.log_level, settings.log_format)
    return run(settings, lambda partitions: NoView(settings.redis_url, partitions))


if __name__ == "__main__":
    sys.exit(main())
