"""The life of a command: one table of legal transitions, which is code and documentation at once.

What is not in the table changes nothing: a late duplicate, an outcome that was overtaken by a better
one, a delivery record that comes after the car's own word. So a command never goes backward, and a
final state never changes. `overdue` is a doubt, not an end: whatever the car says next counts, if it
is not less than what it had said before (`last_said`). A running command does not expire (the car is
at it); it goes overdue when it falls silent, and an overdue one ends at its expiry, or one more
`overdue_after` later when that is already past. What the car has begun cannot be cancelled, also when it
has fallen silent over it: the lane's next command must not run beside it (`UNLESS_RUNNING`).
"""

from typing import Final, Literal, get_args

from twin.wire.records import Command, CommandState

Event = Literal[
    "sent", "given_up",
    "received", "accepted", "rejected", "running", "succeeded", "failed",
    "overdue", "expire", "cancel",
]  # fmt: skip

FINAL: Final[frozenset[CommandState]] = frozenset(
    {"succeeded", "failed", "rejected", "expired", "cancelled", "undeliverable"}
)

CARS_WORD: Final[frozenset[CommandState]] = frozenset({"succeeded", "failed", "rejected"})
"""Ends that the car has said."""
WITHOUT_CAR: Final = FINAL - CARS_WORD
"""Ends without its word; what it says afterwards is a late outcome."""

_CARS_END: Final[dict[Event, CommandState]] = {
    "succeeded": "succeeded",
    "failed": "failed",
    "rejected": "rejected",
}
_WITHOUT_CAR: Final[dict[Event, CommandState]] = {"expire": "expired", "cancel": "cancelled"}
_OVERDUE: Final[dict[Event, CommandState]] = {"overdue": "overdue"}

TRANSITIONS: Final[dict[CommandState, dict[Event, CommandState]]] = {
    "queued": {
        "sent": "sent",
        "received": "delivered",
        "accepted": "accepted",
        "running": "running",
        **_CARS_END,
        **_WITHOUT_CAR,
        "given_up": "undeliverable",
    },
    "sent": {
        "received": "delivered",
        "accepted": "accepted",
        "running": "running",
        **_CARS_END,
        **_OVERDUE,
        **_WITHOUT_CAR,
    },
    "delivered": {
        "accepted": "accepted",
        "running": "running",
        **_CARS_END,
        **_OVERDUE,
        **_WITHOUT_CAR,
    },
    "accepted": {"running": "running", **_CARS_END, **_OVERDUE, **_WITHOUT_CAR},
    "running": {**_CARS_END, **_OVERDUE},
    "overdue": {
        "received": "delivered",
        "accepted": "accepted",
        "running": "running",
        **_CARS_END,
        **_WITHOUT_CAR,
    },
    **{state: {} for state in sorted(FINAL)},
}

UNLESS_RUNNING: Final[frozenset[tuple[CommandState, Event]]] = frozenset({("overdue", "cancel")})
"""Transitions that are not made when the car had said that it is at it."""

MEANING: Final[dict[CommandState, str]] = {
    "queued": "stored; the car is not online, its lane is not free, or the broker has not taken it",
    "sent": "the broker took it",
    "delivered": "the car said that it has it",
    "accepted": "the car agreed to do it",
    "running": "the car is at it (`progress` 0 to 1)",
    "succeeded": "done",
    "failed": "the car tried and could not",
    "rejected": "the car refused",
    "overdue": "no word of the car in time; a late word still counts",
    "expired": "too old to run",
    "cancelled": "withdrawn",
    "undeliverable": "the broker refused it in three sessions",
}

_RANK: Final[dict[CommandState, int]] = {
    "queued": 0,
    "sent": 1,
    "delivered": 2,
    "accepted": 3,
    "running": 4,
}


def next_state(command: Command, event: Event) -> CommandState | None:
    """The state that `event` leads to; None when it changes nothing."""
    state = command["state"]
    after = TRANSITIONS[state].get(event)
    if state == "overdue" and after is not None:
        said = last_said(command)
        if after not in FINAL and _RANK[after] < _RANK[said]:
            return None
        if said == "running" and (state, event) in UNLESS_RUNNING:
            return None
    return after


def last_said(command: Command) -> CommandState:
    """The state before any doubt: the latest of the history that is not overdue."""
    return next(
        (entry["state"] for entry in reversed(command["history"]) if entry["state"] != "overdue"),
        "queued",
    )


def next_due(command: Command, overdue_after_ms: int) -> int | None:
    """When time alone changes this command (ms); None when it never does."""
    state, expires_at = command["state"], command["expires_at"]
    if state in FINAL:
        return None
    silent = command["updated_at"] + overdue_after_ms
    if state == "queued":
        return expires_at
    if state == "running":
        return silent
    return max(expires_at, silent) if state == "overdue" else min(expires_at, silent)


def due_event(command: Command, due: int, overdue_after_ms: int) -> Event | None:
    """What a deadline at `due` does to this command; None when it is outdated."""
    when = next_due(command, overdue_after_ms)
    if when is None or due < when:
        return None
    if command["state"] != "running" and command["expires_at"] <= due:
        return "expire"
    return "overdue"


def render() -> str:
    """The table as Markdown: states, what they mean, and which event leads where."""
    rows = ["| state | meaning | event -> next state |", "|---|---|---|"]
    for state in get_args(CommandState):
        leads = ", ".join(
            f"{event} -> {after}{' (not after running)' * ((state, event) in UNLESS_RUNNING)}"
            for event, after in TRANSITIONS[state].items()
        )
        rows.append(f"| `{state}` | {MEANING[state]} | {leads or 'final'} |")
    return "\n".join(rows) + "\n"
