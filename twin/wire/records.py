"""The shape of every JSON record on Kafka and of the twin document. Contracts, not classes.

All times are ms since 1970 (`*_at`, `at`, `since`, `event_time`); all records about a vehicle carry
`vehicle_id`, which is also the key. Telemetry is Avro: see `twin.wire.telemetry` and `codec`.
"""

from collections.abc import Mapping
from typing import Any, Final, Literal, NotRequired, TypedDict

PresenceState = Literal["online", "offline", "stale", "unknown"]
HealthState = Literal["normal", "warning", "alarm", "insufficient_data"]
CommandState = Literal[
    "queued", "sent", "delivered", "accepted", "running", "succeeded", "failed",
    "rejected", "overdue", "expired", "cancelled", "undeliverable",
]  # fmt: skip
OutcomeState = Literal["received", "accepted", "rejected", "running", "succeeded", "failed"]
PropertyState = Literal["pending", "sent", "acked", "diverged", "expired"]
RequestKind = Literal[
    "desired", "command", "cancel", "attributes", "delete", "approval", "deadline"
]
DownlinkKind = Literal["command", "cancel", "desired", "forget"]
RefusalCode = Literal[
    "bad_request", "bad_command", "bad_ttl", "too_deep", "key_too_long", "twin_not_found",
    "command_not_found", "idempotency_conflict", "illegal_transition", "already_final",
    "version_mismatch", "document_too_large", "too_many_open_commands", "too_many_commands",
    "decision_not_found", "not_awaiting_approval", "interlock_refused",
]  # fmt: skip
"""Why a twin's owner refuses a request (`Reply.code`). Public: codes are added, never renamed."""

FREE_LANE: Final = "default"
"""The lane of commands that name none; it is no queue (`twin.dispatch`)."""


# --- From the uplink -----------------------------------------------------------------------------


class Presence(TypedDict):
    """Topic `presence`: a birth, a will or a goodbye, as the car or its broker said it."""

    vehicle_id: str
    state: Literal["online", "offline"]
    session: int
    at: int
    shard: int
    attributes: NotRequired[dict[str, str]]
    reason: NotRequired[str]


class Reported(TypedDict):
    """Topic `reported`: configuration the car confirms; `properties` is a merge patch (RFC 7396)."""

    vehicle_id: str
    event_time: int
    session: int
    sequence: int
    properties: dict[str, Any]
    desired_version: NotRequired[int]


class Outcome(TypedDict):
    """Topic `outcomes`: what the car says of a command."""

    vehicle_id: str
    command_id: str
    state: OutcomeState
    at: int
    progress: NotRequired[float]
    reason: NotRequired[str]


# --- Asked of a twin -----------------------------------------------------------------------------


class Request(TypedDict):
    """Topic `requests`. `body` by kind:

    desired: {"op":"patch"|"put","value":{..}}; command: {"id","name","args","ttl_s","lane"};
    cancel: {"command_id"}; attributes: {"value":{..}}; delete: {};
    approval: {"rule","verdict":"approve"|"refuse"};
    deadline: {"of":"command"|"presence"|"desired"|"decision","ref":..,"due":ms} (law 6).
    """

    request_id: str
    kind: RequestKind
    vehicle_id: str
    at: int
    by: str
    body: dict[str, Any]
    if_match: NotRequired[int]
    idempotency_key: NotRequired[str]
    body_hash: NotRequired[str]


class Reply(TypedDict):
    """The owner's decision on a request, stored 24 h under the request id.

    `status` is the HTTP status, `code` the stable public word when it is a refusal. `body_hash` is that
    of the request that was decided: under one request id there is one decision, and a repetition with
    another body is told from the hash.
    """

    request_id: str
    vehicle_id: str
    status: int
    body: dict[str, Any]
    revision: int
    code: NotRequired[RefusalCode]
    detail: NotRequired[str]
    body_hash: NotRequired[str]


# --- Scores --------------------------------------------------------------------------------------


class SignalShare(TypedDict):
    signal: str
    share: float


class ModelScore(TypedDict):
    """One model's verdict. The autoencoder gives score, threshold and signals; the LSTM the rest.

    `remaining_s` is the component time until failure, with its interval; no `remaining_high_s`: it
    may last any longer.
    """

    version: str
    score: NotRequired[float]
    threshold: NotRequired[float]
    signals: NotRequired[list[SignalShare]]
    failure_probability: NotRequired[float]
    horizon_s: NotRequired[int]
    remaining_s: NotRequired[int]
    remaining_low_s: NotRequired[int]
    remaining_high_s: NotRequired[int]


class Score(TypedDict):
    """Topic `scores`. `id` = vehicle:offset:version; `state` is already debounced.

    `why`: what is new; `every` when nothing is, and the scorer was told to say all (SCORE_ALL).
    """

    id: str
    vehicle_id: str
    event_time: int
    session: int
    sequence: int
    partition: int
    offset: int
    scored_at: int
    state: HealthState
    models: dict[str, ModelScore]
    why: Literal["state", "deadband", "heartbeat", "every"]


# --- To the car ----------------------------------------------------------------------------------


class Downlink(TypedDict):
    """Topic `downlink`: `payload` goes out unchanged on vehicles/{id}/commands or /desired.

    `ref` is the command id or the desired version; `session` and `shard` are the twin's presence.
    `forget` is for the broker: it shall drop the status that it retains of a car whose twin was
    deleted. `ref` is the session then, and `payload` has no members.
    """

    id: str
    kind: DownlinkKind
    vehicle_id: str
    ref: str
    shard: int
    session: int
    payload: dict[str, Any]
    expires_at: NotRequired[int]


class Delivery(TypedDict):
    """Topic `deliveries`: `sent` = the broker took it, `refused` = it did not."""

    id: str
    kind: DownlinkKind
    vehicle_id: str
    ref: str
    session: int
    state: Literal["sent", "refused"]
    at: int
    reason: NotRequired[str]


# --- What the twin keeps and tells ---------------------------------------------------------------


class Position(TypedDict):
    """Which record caused it."""

    topic: str
    partition: int
    offset: int


class Change(TypedDict):
    """Topic `changes`: one semantic change of a twin. `id` = vehicle:created_at:topic/partition/offset:n.

    The position is that of the record in hand, so the same record gives the same ids and no other does.

    `kind`: created, deleted, attributes, presence, config, desired, health, alert, command, decision,
    and late_outcome: what a car says of a command that ended without it (expired, cancelled, ..).
    """

    id: str
    vehicle_id: str
    revision: int
    at: int
    kind: str
    what: dict[str, Any]
    why: Position
    rule: NotRequired[str]


class Cause(TypedDict):
    """Why a command exists when a decision made it: the score record, model, version, threshold.

    `approved_by`: who agreed, when the rule asks for approval.
    """

    score: str
    topic: str
    partition: int
    offset: int
    model: str
    version: str
    value: float
    threshold: float
    signals: list[SignalShare]
    rule: NotRequired[str]
    approved_by: NotRequired[str]


class Transition(TypedDict):
    state: CommandState
    at: int
    reason: NotRequired[str]


class Late(TypedDict):
    """What the car last said of a command that had ended without its word."""

    state: OutcomeState
    at: int
    reason: NotRequired[str]


class Refused(TypedDict):
    """That a command, or its cancel, was not taken by the broker: in which session, and why."""

    kind: DownlinkKind
    session: int
    at: int
    reason: str


class Command(TypedDict):
    """Topic `ledger`, key `vehicle_id/command_id`: one command from request to final state.

    `history` keeps the first and the latest transitions (bounded).
    """

    id: str
    vehicle_id: str
    name: str
    args: dict[str, Any]
    lane: str
    state: CommandState
    issued_at: int
    expires_at: int
    updated_at: int
    by: str
    history: list[Transition]
    attempts: list[int]
    """Sessions it was handed to the downlink in, the latest last (bounded)."""
    refusals: NotRequired[list[int]]
    """Sessions in which the broker did not take it, while it had never taken it (bounded)."""
    refused: NotRequired[Refused]
    """The last time that the broker did not take it, or its cancel."""
    late: NotRequired[Late]
    progress: NotRequired[float]
    cause: NotRequired[Cause]
    fleet: NotRequired[str]
    """Attribute of the vehicle when a rule gave the command: what its rate cap counts."""
    idempotency_key: NotRequired[str]
    body_hash: NotRequired[str]
    epoch: NotRequired[int]
    """Of the owner that wrote the entry (law 5)."""
    revision: NotRequired[int]
    """Of the twin with which the entry was written."""


class SignalValue(TypedDict):
    """Value, event time, session, sequence, and the offset of the record that set it.

    `q`: the value is impossible and was kept all the same (validation mode `warn`).
    """

    v: float
    t: int
    n: int
    s: int
    o: int
    q: NotRequired[Literal["suspect"]]


class PropertyStatus(TypedDict):
    """`version` last asked for the property; unconfirmed at `until` (ms) it shows as expired.

    `reason`: why the broker did not take it when it was last said; it is said again in the next session.
    """

    state: PropertyState
    since: int
    version: int
    until: NotRequired[int]
    reason: NotRequired[str]


class Offered(TypedDict):
    """What of the delta was handed to the downlink in the car's session, so that it is said once."""

    version: int
    session: int
    keys: list[str]


class Desired(TypedDict):
    """What is wanted of the car; `version` counts the accepted requests."""

    version: int
    properties: dict[str, Any]
    status: dict[str, PropertyStatus]
    offered: NotRequired[Offered]


class Asked(TypedDict):
    """A keyed request that was accepted at offset `o` of `requests`, so that it does not count twice.

    `ref`: the command or rule that it was about.
    """

    kind: RequestKind
    hash: str
    status: int
    at: int
    o: int
    ref: NotRequired[str]


class Confirmed(TypedDict):
    """The newest `reported` record that `config` holds."""

    event_time: int
    session: int
    sequence: int
    offset: int
    desired_version: NotRequired[int]


class TwinPresence(TypedDict):
    """`session` and `shard` are 0 and -1 before any status; `seen`: arrival of the last new telemetry.

    `told`: an offline that is younger than the debounce time; `changes` still say this state.
    """

    state: PresenceState
    since: int
    session: int
    shard: int
    reason: str
    seen: NotRequired[int]
    told: NotRequired[PresenceState]


class Alert(TypedDict):
    """An open alarm and the score that opened it."""

    score_id: str
    since: int


class Health(TypedDict):
    state: HealthState
    since: int
    models: dict[str, ModelScore]
    score_id: NotRequired[str]
    event_time: NotRequired[int]
    session: NotRequired[int]
    sequence: NotRequired[int]
    alert: NotRequired[Alert]


class Decision(TypedDict):
    """What a rule last decided for this car; `reason` names the interlock that refused.

    `command`, `fired_at`, `episode` are of the last command that the rule gave. While it awaits
    approval: `cause` of the command, and `until` when (ms). `denied`: the episode in which somebody
    said no; `by`: who approved or refused.
    """

    verdict: Literal["command", "refused", "idle", "awaiting_approval", "lapsed"]
    at: int
    score_id: str
    reason: NotRequired[str]
    command: NotRequired[str]
    fired_at: NotRequired[int]
    episode: NotRequired[int]
    until: NotRequired[int]
    cause: NotRequired[Cause]
    denied: NotRequired[int]
    by: NotRequired[str]


class LastCommand(TypedDict):
    id: str
    name: str
    state: CommandState


class TwinCommands(TypedDict):
    """`cancels`: ids of cancelled commands that the car may have -> session it was told in (0: not)."""

    open: list[str]
    last: NotRequired[LastCommand]
    cancels: NotRequired[dict[str, int]]


class Counts(TypedDict):
    """Telemetry records of this car that were no news, counted once each by offset (`twin.lateness`).

    `late`: at least one value was older than the twin's. `duplicates`: the record that the twin's
    values are of came again (a copy of an older one counts as late).
    """

    late: int
    duplicates: int


class Twin(TypedDict):
    """The state document (design section 6), kept on topic `twins` under the vehicle id.

    `applied` holds, per input topic, partition and offset of the last applied record (law 2); `epoch`
    is the writing owner's (law 5), the first field so that it is found without reading the rest;
    `causes` which record set which part (`twin.causes`); `asked` keyed requests by request id. These
    and `counts` are bookkeeping: alone they make no revision.
    """

    epoch: int
    vehicle_id: str
    revision: int
    created_at: int
    updated_at: int
    attributes: dict[str, str]
    reported: Mapping[str, SignalValue]
    config: dict[str, Any]
    desired: Desired
    delta: dict[str, Any]
    presence: TwinPresence
    health: Health
    commands: TwinCommands
    applied: dict[str, list[int]]
    confirmed: NotRequired[Confirmed]
    decisions: NotRequired[dict[str, Decision]]
    counts: NotRequired[Counts]
    causes: NotRequired[dict[str, str]]
    asked: NotRequired[dict[str, Asked]]
