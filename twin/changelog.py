"""Reading the changelogs `twins` and `ledger` back: what a new owner of a partition starts from.

    (topic, partition, from) -> every record up to the end as it is now -> newest of each key, outboxes

Law 5: owners follow on each other, so a record of a lower epoch than one before it in the partition is
a former owner's late write. It does not count, and its key is named so that the owner writes what holds
once more: else compaction would keep the late one. A new owner begins with a fence, a record that says
nothing but its epoch: what a former owner writes behind it is late, whether the new one has written
anything else or not. Owners sign all that they write with their epoch, so what has none is a stranger's:
it does not count either, is counted, and its key is named likewise. So is what has an epoch far ahead
of the record's own time: nobody could follow on it.

Reading is by librdkafka in one thread: about 4 us a record of 2 KB, if the garbage collector is off.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import orjson
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)

from twin.kit import kafka, logs
from twin.wire import codec, topics
from twin.wire.errors import CartwinError

log = logs.get(__name__)

EPOCH: Final = "epoch"
"""Header of a tombstone, and field of every document and entry: the owner's epoch (law 5)."""
OUTBOX: Final = "outbox"
"""Header of a record of `twins`: the outputs of its batch, see `twin.outbox`."""
GRAVE: Final = "applied"
"""Header of a tombstone of `twins`: the deleted twin's `applied`, so that no old record revives it."""

FENCE: Final = "#owner"
"""Key of a fence; no vehicle can have it."""

CHANGELOGS: Final = (topics.TWINS, topics.LEDGER)

MAX_EPOCH: Final = 2**48
"""Epochs are below: they follow the seconds since 1970, and Redis counts in doubles."""
AHEAD_S: Final = 86_400
"""No owner's epoch is further ahead of the time of its record. Of the record and not of who reads: so
every reader judges alike and for ever, and one whose clock is behind does not take all for strange."""

# What is in hand at a time should fit into the processor's cache.
_CONSUME: Final = 500
# The client waits so long for a whole batch even when the end is reached.
_POLL_S: Final = 0.005
_ANSWER_S: Final = 10.0
_HEAD: Final = re.compile(rb'\{"epoch":([0-9]{1,15})[,}]')
_KEY: Final = re.compile(r"[A-Za-z0-9._-]{1,64}(/[A-Za-z0-9._-]{1,91})?", re.ASCII)
"""Vehicle, or vehicle/command."""
_HOPELESS: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError._FATAL,
    }
)
"""Errors that waiting does not heal."""
NO_HEADERS: Final[Mapping[str, bytes]] = MappingProxyType({})

Place = tuple[str, int]
"""Topic and partition."""


class Kept(NamedTuple):
    """Where a changelog is to be read on (`offset`), by whoever has all that is in front of it.

    `epoch`: the highest there; `floor`: what is behind it under a lower epoch is a former owner's.
    """

    offset: int
    epoch: int
    floor: int = 0


class Newest(NamedTuple):
    """The newest record of a key; `value` None = a tombstone."""

    value: bytes | None
    headers: Mapping[str, bytes]
    offset: int
    """Negative when it was not read from Kafka but is in the local copy."""


@dataclass(slots=True)
class Tail:
    """What was read of one partition of a changelog, up to `end` (the offset of the next record)."""

    end: int = 0
    newest: dict[str, Newest] = field(default_factory=dict)
    outboxes: list[tuple[str, bytes]] = field(default_factory=list)
    """Key and outbox of each record that has one, in order."""
    epoch: int = 0
    """The highest seen."""
    floor: int = 0
    """What is read under a lower epoch is a former owner's, whatever its key; rises with what is read."""
    fences: int = 0
    """How many there are under the highest epoch."""
    overwritten: set[str] = field(default_factory=set)
    """Keys whose last record is a former owner's or a stranger's."""
    strange: int = 0
    """How many records no owner wrote."""
    stranger: int = -1
    """Offset of the first of them."""
    records: int = 0


class Reader:
    """One client that reads parts of changelogs; not a member of any group."""

    def __init__(self, bootstrap: str) -> None:
        self._bootstrap = bootstrap
        self._client: Consumer = kafka.consumer(
            bootstrap,
            "cartwin-restore",
            "cartwin-restore",
            **{
                "enable.partition.eof": True,
                # Else a stranger's open transaction would hide what owners wrote behind it.
                "isolation.level": "read_uncommitted",
                # An end is told when a fetch has waited so long for more.
                "fetch.wait.max.ms": 5,
                "queued.max.messages.kbytes": 64 * 1024,
                # Its default is a second's rest whenever the queue is full.
                "fetch.queue.backoff.ms": 5,
                "fetch.max.bytes": 16 * 1024 * 1024,
                "max.partition.fetch.bytes": 4 * 1024 * 1024,
            },
        )

    def close(self) -> None:
        """End the client."""
        self._client.close()

    def bounds(self, place: Place) -> tuple[int, int]:
        """The first offset and the end of a partition. Raises `ChangelogUnreadable`."""
        try:
            low, high = self._client.get_watermark_offsets(
                TopicPartition(*place), timeout=_ANSWER_S
            )
        except KafkaException as error:
            raise ChangelogUnreadable(
                f"{place[0]} partition {place[1]}: {error.args[0].str()}"
            ) from error
        return low, high

    def identity(self) -> dict[str, str]:
        """Kafka's own id of each changelog, new when the topic is. Raises `ChangelogUnreadable`."""
        admin = kafka.admin(self._bootstrap)
        try:
            asked = admin.describe_topics(
                TopicCollection(list(CHANGELOGS)), request_timeout=_ANSWER_S
            )
            return {topic: str(answer.result().topic_id) for topic, answer in asked.items()}
        except KafkaException as error:
            raise ChangelogUnreadable(f"{', '.join(CHANGELOGS)}: {error.args[0].str()}") from error

    def read(self, tails: Mapping[Place, Tail], wanted: Callable[[], bool]) -> bool:
        """Read each partition on from the end of its tail, into it; False when not `wanted` any more.

        Waits for Kafka as long as it is wanted. Raises `ChangelogUnreadable`.
        """
        self._client.assign(
            [TopicPartition(*place, tail.end or OFFSET_BEGINNING) for place, tail in tails.items()]
        )
        left = set(tails)
        try:
            while left:
                if not wanted():
                    return False
                for message in self._client.consume(_CONSUME, _POLL_S):
                    place = (str(message.topic()), int(message.partition() or 0))
                    error = message.error()
                    if error is None:
                        _take(tails[place], message)
                    elif error.code() == KafkaError._PARTITION_EOF:
                        tails[place].end = max(tails[place].end, message.offset() or 0)
                        left.discard(place)
                    elif error.code() in _HOPELESS:
                        raise ChangelogUnreadable(f"{place[0]} partition {place[1]}: {error.str()}")
                    else:
                        log.warning("changelog waits for Kafka", error=error.str())
        finally:
            self._client.unassign()
        return True


class ChangelogUnreadable(CartwinError):
    """A changelog that must exist cannot be read."""


def _take(tail: Tail, message: Any) -> None:
    offset: int = message.offset()
    tail.end = offset + 1
    tail.records += 1
    raw, value, told = message.key(), message.value(), kafka.headers_of(message)
    headers = {k: v for k, v in told if v is not None} if told else NO_HEADERS
    key = "" if raw is None else raw.decode("utf-8", "replace")
    named = key in tail.newest or key == FENCE or _KEY.fullmatch(key) is not None
    epoch = epoch_of(value, headers) if named else 0
    if epoch > message.timestamp()[1] // 1000 + AHEAD_S:
        epoch = 0
    if not epoch:
        tail.stranger = tail.stranger if tail.strange else offset
        tail.strange += 1
    if not epoch or epoch < tail.floor:
        if named:
            tail.overwritten.add(key)
        return
    if epoch > tail.epoch:
        tail.epoch, tail.fences = epoch, 0
    tail.floor = epoch
    if key == FENCE:
        tail.fences += epoch == tail.epoch
        return
    tail.newest[key] = Newest(value, headers, offset)
    if tail.overwritten:
        tail.overwritten.discard(key)
    if OUTBOX in headers:
        tail.outboxes.append((key, headers[OUTBOX]))


def tombstone(
    epoch: int, applied: Mapping[str, list[int]] | None = None
) -> list[tuple[str, bytes]]:
    """Headers of a record without a value, of `twins` with what the deleted twin had `applied`."""
    headers = [(EPOCH, b"%d" % epoch)]
    if applied is not None:
        headers.append((GRAVE, codec.dump(applied)))
    return headers


def epoch_of(value: bytes | None, headers: Mapping[str, bytes]) -> int:
    """Under which epoch a record of a changelog was written; 0 when it does not say."""
    if value is None:
        said = headers.get(EPOCH, b"")
        epoch = int(said) if len(said) <= 15 and said.isdigit() else 0
    elif head := _HEAD.match(value):
        epoch = int(head[1])
    else:
        try:
            found = orjson.loads(value).get(EPOCH, 0)
        except (orjson.JSONDecodeError, AttributeError):
            return 0
        epoch = found if type(found) is int and found > 0 else 0
    return epoch if epoch < MAX_EPOCH else 0
