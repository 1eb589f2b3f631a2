"""The real twin worker, which stops itself at a named point: `worker_app.py POINT COUNT KILL|STOP`.

The names in `POINTS` are the steps of law 4 in their order, and those of a takeover. At the COUNT-th
time that the process comes to the point it sends itself the signal: nothing is flushed, closed or told.
A step that is said to be half done is half done for sure: that half is acknowledged by Kafka; of the view
it is all but the answers. When it is `answered`, none of the batch's outputs has left the process.
"""

import os
import signal
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twin import agents, worker
from twin.agents import Owner
from twin.changelog import Reader
from twin.delivery import Writer
from twin.restoring import Restoring
from twin.stream import transport
from twin.takeover import Takeover
from twin.view import View, packing
from twin.view.link import Link
from twin.wire import topics

OWNING = (
    "decided",
    "changelog half",
    "changelog produced",
    "changelog",
    "copy",
    "outputs half",
    "outputs produced",
    "view half",
    "view",
    "answered",
    "told",
    "commit",
    "committed",
)
TAKING_OVER = ("read", "restored", "claimed", "told again")
POINTS = (*OWNING, *TAKING_OVER)


class Hooks:
    """Counts how often the point was reached, and ends or freezes the process."""

    def __init__(self, point: str, count: int, how: str) -> None:
        self._point = point
        self._left = count
        self._signal = signal.Signals[f"SIG{how}"]

    def reach(self, point: str) -> None:
        """The process is at a point."""
        if self.next(point):
            self.stop()

    def next(self, point: str) -> bool:
        """Whether this is the time."""
        if point == self._point:
            self._left -= 1
            return self._left == 0
        return False

    def stop(self) -> None:
        """Here."""
        os.kill(os.getpid(), self._signal)


def install(hooks: Hooks) -> None:
    """Put the points into the worker's own functions."""
    _decide(hooks)
    _changelog(hooks)
    _outputs_and_view(hooks)
    _steps(hooks)
    _commit(hooks)
    after_async(View, "claim", hooks, "claimed")
    after(Reader, "read", hooks, "read")
    after(Restoring, "_build", hooks, "restored")
    after_async(Takeover, "_finish", hooks, "told again")


def after(owner: Any, name: str, hooks: Hooks, point: str) -> None:
    """`point` is when the function `name` of `owner` has returned."""
    real = getattr(owner, name)

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = real(*args, **kwargs)
        hooks.reach(point)
        return result

    setattr(owner, name, wrapped)


def after_async(owner: Any, name: str, hooks: Hooks, point: str) -> None:
    """The same for a coroutine function."""
    real = getattr(owner, name)

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        result = await real(*args, **kwargs)
        hooks.reach(point)
        return result

    setattr(owner, name, wrapped)


def _decide(hooks: Hooks) -> None:
    real = Owner.decide

    def decide(self: Any, *args: Any) -> Any:
        batch, end = real(self, *args)
        if batch.owners:
            hooks.reach("decided")
        return batch, end

    Owner.decide = decide  # type: ignore[method-assign]


def _changelog(hooks: Hooks) -> None:
    changelog, produced = Writer.changelog, Owner._write_changelog

    def half(self: Any, place: Any, entries: Any, ticket: Any) -> None:
        if place[0] == topics.TWINS and len(entries) > 1 and hooks.next("changelog half"):
            changelog(self, place, entries[: len(entries) // 2], ticket)
            _flush(self)
            hooks.stop()
        changelog(self, place, entries, ticket)

    def write_changelog(self: Any, batch: Any, *args: Any) -> Any:
        shown = produced(self, batch, *args)
        if batch.owners:
            hooks.reach("changelog produced")
        return shown

    Writer.changelog = half  # type: ignore[method-assign]
    Owner._write_changelog = write_changelog  # type: ignore[method-assign]


def _outputs_and_view(hooks: Hooks) -> None:
    write, send = Owner._write_outputs, Writer.send
    show, transact = View.write, Link.transact
    left: list[int] = []
    held: list[Callable[[], None]] = []
    cut: list[bool] = []

    def count_down(self: Any, *args: Any) -> None:
        send(self, *args)
        if left:
            left[0] -= 1
            if not left[0]:
                _flush(self)
                hooks.stop()

    def write_outputs(self: Any, batch: Any, *args: Any) -> None:
        if batch.replies and hooks.next("answered"):
            # Not on their way before the answers are told.
            held.append(partial(write, self, batch, *args))
            return
        sent = sum(
            output.kind in ("changes", "downlink")
            for outbox in batch.outboxes.values()
            for _, _, outputs in outbox.causes
            for output in outputs
        )
        if sent > 1 and hooks.next("outputs half"):
            left.append(sent // 2)
        write(self, batch, *args)
        if sent:
            hooks.reach("outputs produced")

    async def show_batch(self: Any, shown: Any) -> None:
        if shown.replies and hooks.next("view half"):
            # Each write is a transaction of its own.
            packing._WORK = 1  # type: ignore[misc]
            cut.append(True)
        await show(self, shown)
        hooks.reach("view")
        if held:
            hooks.stop()
            held.pop()()

    async def transact_half(self: Any, commands: Any, count: int, epochs: Any) -> Any:
        if cut and any(b"PUBLISH" in piece for piece in commands):
            cut.clear()
            hooks.stop()
        return await transact(self, commands, count, epochs)

    Writer.send = count_down  # type: ignore[method-assign]
    Owner._write_outputs = write_outputs  # type: ignore[method-assign]
    View.write = show_batch  # type: ignore[method-assign]
    Link.transact = transact_half  # type: ignore[method-assign]


def _steps(hooks: Hooks) -> None:
    real = agents.passed

    def passed(step: str, started: float) -> None:
        real(step, started)
        if step in ("changelog", "copy", "told"):
            hooks.reach(step)

    agents.passed = passed


def _commit(hooks: Hooks) -> None:
    real = transport.Consumer._commit_offsets

    async def commit(self: Any, offsets: Any, *args: Any, **kwargs: Any) -> Any:
        hooks.reach("commit")
        done = await real(self, offsets, *args, **kwargs)
        hooks.reach("committed")
        return done

    transport.Consumer._commit_offsets = commit


def _flush(writer: Any) -> None:
    assert writer._producer.flush(30) == 0


def main() -> int:
    """The worker, with hooks when arguments name a point."""
    if sys.argv[1:]:
        point, count, how = sys.argv[1:]
        assert point in POINTS, point
        install(Hooks(point, int(count), how))
    return worker.main()


if __name__ == "__main__":
    sys.exit(main())
