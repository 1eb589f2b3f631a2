"""Records that nobody of ours would write, for Hypothesis: any bytes, forged headers, near misses.

A `Poison` names cars by tokens, so that each time it is sent it is about cars that nothing is known of:
an example means the same the second time, and Hypothesis can make it smaller.
"""

import json
from dataclasses import dataclass, replace
from typing import Any

from hypothesis import strategies as st

from twin.app import INPUTS
from twin.fields import FIELDS
from twin.wire import codec, topics
from twin.wire.errors import WireError
from twin.wire.telemetry import Telemetry

TOKENS = (b"@car-0@", b"@car-1@")
ULID = "01JB0000000000000000000000"
IDENT = f"{TOKENS[0].decode()}.{ULID}"
T0 = 1_790_000_000_000
MAX_RECORD = 1_000_000
"""Bytes; the brokers' own limit is 1 MiB for a batch with one record."""


@dataclass(frozen=True, repr=False)
class Poison:
    """One record; `partition` None = where its key belongs."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str | bytes, bytes | None], ...] = ()
    """Names of bytes are no UTF-8."""
    partition: int | None = None

    def __repr__(self) -> str:
        key, value = (
            x if x is None or len(x) < 400 else (x[:40], len(x)) for x in (self.key, self.value)
        )
        headers = [(name, (content or b"")[:40]) for name, content in self.headers[:5]]
        return f"Poison({self.topic}/{self.partition}, {key!r}, {value!r}, {headers})"

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        printer.text(repr(self))

    def about(self, cars: tuple[str, ...]) -> "Poison":
        """The same about real cars."""

        def named(content: bytes | None) -> bytes | None:
            for token, car in zip(TOKENS, cars, strict=True):
                content = content and content.replace(token, car.encode())
            return content

        headers = tuple((name, named(content)) for name, content in self.headers)
        return replace(self, key=named(self.key), value=named(self.value), headers=headers)

    @property
    def odd(self) -> bool:
        """Whether a header has a name that is no text."""
        return any(isinstance(name, bytes) for name, _ in self.headers)

    @property
    def size(self) -> int:
        """Bytes, about as Kafka counts them."""
        headers = sum(
            len(name.encode() if isinstance(name, str) else name) + len(content or b"")
            for name, content in self.headers
        )
        return len(self.key or b"") + len(self.value or b"") + headers


def _short(content: bytes | None) -> object:
    return content if content is None or len(content) < 400 else (content[:40], len(content))


def repeated(least: int, most: int) -> st.SearchStrategy[bytes]:
    """Many bytes of which Hypothesis draws a few."""
    return st.builds(
        lambda block, size: (block * (size // len(block) + 1))[:size],
        st.binary(min_size=1, max_size=4),
        st.integers(least, most),
    )


KEYS = st.one_of(
    st.sampled_from(TOKENS),
    st.sampled_from(TOKENS),
    st.none(),
    st.sampled_from(
        [
            b"",
            b"#owner",
            b"sensor",
            b"\xff\xfe",
            b"a/b",
            b"..",
            b"a b",
            b"x" * 65,
            "\u00e4".encode(),
        ]
    ),
    st.binary(max_size=80),
    repeated(1000, 200_000),
)
NUMBERS = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([2**63, 2**64, -(2**63), 1e308, 5e-324, -0.0]),
)
TEXTS = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "\ud800", IDENT, TOKENS[0].decode(), "__proto__", "\u2028"]),
    st.builds(
        lambda text, times: text * times, st.text(min_size=1, max_size=3), st.integers(1, 3000)
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(TEXTS.map(lambda t: t[:200]), inner, max_size=4)
    ),
    max_leaves=10,
)
GOOD: dict[str, st.SearchStrategy[Any]] = {
    "vehicle_id": st.just(TOKENS[0].decode()),
    "session": st.integers(0, 3),
    "at": st.just(T0),
    "shard": st.integers(0, 1),
    "event_time": st.just(T0),
    "sequence": st.integers(0, 3),
    "properties": st.dictionaries(TEXTS, JSON, max_size=3),
    "attributes": st.dictionaries(st.text(max_size=3), st.text(max_size=5), max_size=2),
    "command_id": st.just(IDENT),
    "ref": st.sampled_from([IDENT, "1"]),
    "id": st.text("ab", min_size=1, max_size=2),
    "partition": st.integers(0, 3),
    "offset": st.integers(0, 3),
    "scored_at": st.just(T0),
    "request_id": st.just(f"{TOKENS[0].decode()}/r"),
    "by": st.just("ann"),
    "why": st.just("state"),
    "models": st.dictionaries(
        st.sampled_from(["m", "n"]),
        st.fixed_dictionaries({"version": st.just("v"), "score": NUMBERS, "threshold": NUMBERS}),
    ),
    "of": st.sampled_from(["command", "presence", "desired", "approval"]),
    "state": st.sampled_from(
        ["online", "offline", "running", "succeeded", "sent", "refused", "alarm", "normal"]
    ),
    "kind": st.sampled_from(["command", "cancel", "desired", "attributes", "delete", "deadline"]),
    "body": st.fixed_dictionaries(
        {},
        optional={
            "op": st.sampled_from(["patch", "put"]),
            "value": st.dictionaries(TEXTS, JSON, max_size=3),
            "id": st.just(IDENT),
            "name": st.just("ping"),
            "args": JSON,
            "ttl_s": st.integers(0, 10**6) | NUMBERS,
            "lane": st.sampled_from(["default", "a"]) | TEXTS,
            "command_id": st.just(IDENT),
            "of": st.sampled_from(["command", "presence", "desired", "approval"]),
            "ref": st.sampled_from([IDENT, "1"]),
            "due": st.integers(0, 2**63) | NUMBERS,
        },
    ),
}


@st.composite
def near_json(draw: st.DrawFn, topic: str) -> bytes:
    """A record of a JSON topic whose fields are right or nearly so."""
    fields = {}
    for name in FIELDS[topic]:
        good = GOOD.get(name, JSON)
        if draw(st.integers(0, 19)):
            fields[name] = draw(good if draw(st.integers(0, 9)) else JSON)
    return json.dumps(fields).encode()


@st.composite
def telemetry(draw: st.DrawFn) -> bytes:
    """Avro of a car, whole or spoilt somewhere."""
    names = st.sampled_from(
        ["speed", "coolant_temp", "throttle_pos", "tire_pressure_1_1", "nonsense"]
    )
    numbers = st.floats(width=32) | st.integers(-(2**31), 2**31 - 1)
    times = st.integers(0, 2**63 - 1) | st.just(T0)
    said = Telemetry(
        TOKENS[draw(st.integers(0, 1))].decode(),
        draw(times),
        draw(times),
        draw(st.integers(0, 2**63 - 1)),
        draw(st.dictionaries(names, numbers, max_size=4)),
    )
    try:
        data = codec.encode_telemetry(said)
    except (WireError, ValueError, OverflowError, KeyError, TypeError):
        return b"\0\0\0\0\1"
    if draw(st.booleans()):
        return data
    first, last = sorted(draw(st.tuples(st.integers(0, len(data)), st.integers(0, len(data)))))
    return data[:first] + draw(st.binary(max_size=6)) + data[last:]


def values(topic: str) -> st.SearchStrategy[bytes | None]:
    """Values for a topic."""
    near = telemetry() if topic == topics.TELEMETRY else near_json(topic)
    return st.one_of(
        near,
        near,
        near,
        st.none(),
        st.sampled_from([b"", b"{}", b"[]", b"null", b"\xff\xfe", b"{" * 3000, b"[" * 100_000]),
        st.binary(max_size=60),
        JSON.map(lambda value: json.dumps(value).encode()),
        repeated(1000, 30_000),
        repeated(MAX_RECORD - 500_000, MAX_RECORD),
    )


HEADER_NAMES = st.one_of(
    st.sampled_from(
        ["ingested-at", "content-type", "traceparent", "outbox", "epoch", "applied", "#owner", "reason",
         "source", "detail", "attempts", "original-reason", "truncated", ""]
    ),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30),
    st.binary(max_size=5).map(b"\xff".__add__),
)  # fmt: skip
HEADERS = st.builds(
    lambda headers, times: tuple(headers * times),
    st.lists(
        st.tuples(
            HEADER_NAMES,
            st.none()
            | st.sampled_from(
                [b"", b"0", b"-1", b"9" * 40, b"1790000000000", b"\xff", b"avro/binary"]
            )
            | st.binary(max_size=40)
            | repeated(1000, 50_000),
        ),
        max_size=4,
    ),
    st.sampled_from([1, 1, 1, 1, 80]),
)


@st.composite
def poisons(draw: st.DrawFn) -> Poison:
    """One record for any input of the worker."""
    topic = draw(st.sampled_from(INPUTS))
    made = Poison(
        topic=topic,
        key=draw(KEYS),
        value=draw(values(topic)),
        headers=draw(st.just(()) | HEADERS),
        partition=draw(st.none() | st.integers(0, 3)),
    )
    # What Kafka does not take is nobody's concern.
    if made.size > MAX_RECORD:
        made = replace(made, headers=())
    if made.size > MAX_RECORD and made.value is not None:
        made = replace(made, value=made.value[: MAX_RECORD - len(made.key or b"")])
    return made
