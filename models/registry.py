"""The registry: which stored models are champion and challenger, said on the compacted topic `models`.

The topic carries names and hashes, never bytes: the folder lies in the model store that trainer and
scorers share. `uri` is a relative reference (RFC 3986) against that store, so the store may be
mounted elsewhere and a record can never point outside it. Keys `engine/champion` and
`engine/challenger`: the last record counts, an empty one ends the role. A champion's record carries
those before it (`previous`), because a compacted topic forgets them and rolling back needs them.
Beside them lies, for cars, the champion itself (`models.edge`), which the downlink brings to them.
"""

import time
from typing import Final, Literal, NotRequired, TypedDict

import orjson
from confluent_kafka import Consumer, KafkaError, TopicPartition

from models.artefact import NAME, Artefact
from models.errors import NoSuchModel, NotDelivered
from models.scoring import Role
from twin.kit import kafka, logs
from twin.wire import codec, topics

log = logs.get(__name__)

ROLES: Final[tuple[Role, ...]] = ("champion", "challenger")
KEYS: Final[dict[Role, str]] = {role: f"{NAME}/{role}" for role in ROLES}
SCORERS: Final = "cartwin-scorer"
"""Consumer group of all scorers."""
PREVIOUS: Final = 10
"""So many champions before the present one are remembered."""


class Registration(TypedDict):
    """Topic `models`: one model in one role. `sha256` is of the manifest, which holds all others.

    `previous`: champions before this one, the latest first; absent for a challenger.
    """

    name: str
    role: Role
    version: str
    uri: str
    sha256: str
    feature_hash: str
    created_at: int
    horizon_s: int
    metrics: dict[str, float]
    previous: NotRequired[list["Registration"]]


class Status(TypedDict):
    """Topic `model-status`, key scorer (of the challenger scorer/challenger).

    What one scorer runs in a role, or refused to run and why; `retired`: the role ended.
    """

    scorer: str
    name: str
    role: Role
    version: str
    state: Literal["running", "refused", "retired"]
    why: str
    at: int


class Drifted(TypedDict):
    """Topic `model-status`, key scorer/drift/feature: what a scorer's cars send, against the training.

    `state` of `models.drift`. Key scorer/drift/vehicles: `vehicles` are those far outside a fleet that
    stands, `count` of them, each with the feature in which it is.
    """

    scorer: str
    name: str
    version: str
    at: int
    feature: NotRequired[str]
    state: NotRequired[str]
    psi: NotRequired[float | None]
    vehicles: NotRequired[dict[str, str]]
    count: NotRequired[int]


Roles = dict[Role, Registration]


def registration(artefact: Artefact, role: Role = "champion") -> Registration:
    """What the registry says of a stored model."""
    manifest = artefact.manifest
    return Registration(
        name=NAME,
        role=role,
        version=artefact.version,
        uri=artefact.version,
        sha256=artefact.sha256,
        feature_hash=manifest["features"]["hash"],
        created_at=manifest["created_at"],
        horizon_s=manifest["horizon_s"],
        metrics=manifest["metrics"]["summary"],
    )


def succeeding(record: Registration, present: Registration | None) -> Registration:
    """`record` as champion after `present`; both stay as they are."""
    before: list[Registration] = []
    if present is not None:
        before = [_alone(present), *present.get("previous", [])]
    kept = [one for one in before if one["sha256"] != record["sha256"]]
    return {**_alone(record), "role": "champion", "previous": kept[:PREVIOUS]}


def preceding(present: Registration | None) -> Registration:
    """The champion before `present`, as champion again; raises `NoSuchModel`."""
    if present is None:
        raise NoSuchModel("there is no champion to roll back from")
    before = present.get("previous", [])
    if not before:
        raise NoSuchModel(f"no champion is known before {present['version']}; promote one instead")
    return {**before[0], "role": "champion", "previous": before[1:]}


def promote(bootstrap: str, record: Registration, edge: bytes, timeout_s: float = 30) -> None:
    """Make it the champion; a challenger that becomes champion is challenger no more.

    `edge`: the same model for cars (`models.edge`).
    Returns when Kafka has the record, else raises `NotDelivered` or `KafkaUnavailable`.
    """
    present = roles(bootstrap, timeout_s)
    said: dict[Role, Registration | None] = {
        "champion": succeeding(record, present.get("champion"))
    }
    shadow = present.get("challenger")
    if shadow is not None and shadow["sha256"] == record["sha256"]:
        said["challenger"] = None
    _say(bootstrap, said, timeout_s, edge)


def challenge(bootstrap: str, record: Registration, timeout_s: float = 30) -> None:
    """Make it the challenger; raises `NoSuchModel` when there is no other champion to challenge."""
    champion = roles(bootstrap, timeout_s).get("champion")
    if champion is None or champion["sha256"] == record["sha256"]:
        raise NoSuchModel(
            f"{record['version']} has no champion to challenge"
            + ("" if champion is None else ": it is the champion itself")
        )
    _say(bootstrap, {"challenger": {**record, "role": "challenger"}}, timeout_s)


def retire(bootstrap: str, timeout_s: float = 30) -> Registration:
    """End the challenger's role; which model it was. Raises `NoSuchModel` when there is none."""
    challenger = roles(bootstrap, timeout_s).get("challenger")
    if challenger is None:
        raise NoSuchModel("there is no challenger")
    _say(bootstrap, {"challenger": None}, timeout_s)
    return challenger


def restore(bootstrap: str, record: Registration, edge: bytes, timeout_s: float = 30) -> None:
    """Write what `preceding` gave; `edge` as for `promote`."""
    _say(bootstrap, {"champion": record}, timeout_s, edge)


def _alone(record: Registration) -> Registration:
    alone = record.copy()
    alone.pop("previous", None)
    return alone


def _say(
    bootstrap: str,
    said: dict[Role, Registration | None],
    timeout_s: float,
    edge: bytes | None = None,
) -> None:
    client = kafka.producer(
        bootstrap, "models-registry", **{"message.timeout.ms": int(timeout_s * 1000)}
    )
    kafka.wait_for_topics(client, [topics.MODELS], timeout_s)
    failed: list[str] = []

    def delivered(error: KafkaError | None, _message: object) -> None:
        if error is not None:
            failed.append(error.str())

    if edge is not None:
        # Alone and first: when it fails, nothing was changed; a package without a role harms nobody.
        client.produce(topics.MODELS, edge, topics.EDGE_MODEL, on_delivery=delivered)
    left = client.flush(timeout_s + 5)
    for role, record in said.items() if not (left or failed) else ():
        value = None if record is None else codec.dump(record)
        client.produce(topics.MODELS, value, KEYS[role], on_delivery=delivered)
    if left or client.flush(timeout_s + 5) or failed:
        raise NotDelivered(
            "the roles of the models stay as they were: Kafka did not take the record on topic"
            f" {topics.MODELS} ({failed[0] if failed else 'no answer'})"
        )


class Watch:
    """The roles as the topic says, read from its beginning without a consumer group."""

    def __init__(self, bootstrap: str, client_id: str, timeout_s: float = 60) -> None:
        self._consumer: Consumer = kafka.consumer(
            bootstrap, f"{client_id}-models", client_id, **{"enable.partition.eof": True}
        )
        kafka.wait_for_topics(self._consumer, [topics.MODELS], timeout_s)
        self._consumer.assign([TopicPartition(topics.MODELS, 0, 0)])

    def poll(self, timeout_s: float) -> tuple[dict[Role, Registration | None], bool]:
        """Roles that what arrives next gives or (None) ends, and whether the topic's end was reached.

        Records that are no registration are logged and skipped. The end is reported once each time
        it is reached.
        """
        said: dict[Role, Registration | None] = {}
        ended = False
        for message in self._consumer.consume(100, timeout_s):
            error = message.error()
            if error is None:
                role = _ROLE_OF.get(message.key() or b"")
                value = message.value()
                if role is not None and value is None:
                    said[role] = None
                elif role is not None and (record := _read(value)) is not None:
                    said[role] = record
            elif error.code() == KafkaError._PARTITION_EOF:
                ended = True
            else:
                kafka.log_error(error)
        return said, ended

    def close(self) -> None:
        """Stop watching."""
        self._consumer.close()


def roles(bootstrap: str, timeout_s: float = 10) -> Roles:
    """Who is what today. Raises `KafkaUnavailable`."""
    watch = Watch(bootstrap, "models-list", timeout_s)
    deadline = time.monotonic() + timeout_s
    found: dict[Role, Registration | None] = {}
    ended = False
    try:
        while not ended:
            if time.monotonic() > deadline:
                raise kafka.KafkaUnavailable(
                    f"topic {topics.MODELS} could not be read to its end within {timeout_s:.0f} s"
                )
            newer, ended = watch.poll(0.2)
            found.update(newer)
    finally:
        watch.close()
    return {role: record for role, record in found.items() if record is not None}


def current(bootstrap: str, timeout_s: float = 10) -> Registration | None:
    """Today's champion, None when there is none. Raises `KafkaUnavailable`."""
    return roles(bootstrap, timeout_s).get("champion")


_ROLE_OF: Final = {key.encode(): role for role, key in KEYS.items()}


def _read(value: bytes | None) -> Registration | None:
    try:
        record: Registration = orjson.loads(value or b"null")
        words = (record["name"], record["version"], record["uri"], record["sha256"])
        previous = record.get("previous", [])
        if all(isinstance(word, str) for word in words) and isinstance(previous, list):
            return record
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        pass
    log.warning("a record on the registry is no registration", value=(value or b"")[:200])
    return None
