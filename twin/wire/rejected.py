"""Records for the topic `rejected`: the original and why it was not accepted. Pure.

Key: the vehicle id, when the original has a valid one. Value: the original bytes. Headers: reason
(public code), detail (one sentence), source (`mqtt:<topic>` or `kafka:<topic>/<partition>/<offset>`),
attempts, ingested-at (ms), content-type when known, then the original's headers as `original-*`. Of a
message of a car also `shard`, the number of its broker; of one that was driven again `redriven-by`.

Attempts are counted by the header of that name: whoever drives a record again sends it along, and what is
rejected once more has one more (`twin.wire.redrive`).

Whatever came in, the record fits the topic (`topics.REJECTED_MAX_BYTES`), for one that does not fit
would stop its partition. Any original within Kafka's default limit stays whole, except for headers
by the hundreds. What was cut is told: `truncated` = the value's length before, in bytes;
`headers-truncated` = how many of the original's headers were left out.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Final

import orjson

from twin.wire.errors import WireError
from twin.wire.ids import check_vehicle_id

Headers = list[tuple[str, bytes]]

MAX_VALUE_BYTES: Final = 2 * 1024 * 1024
MAX_ORIGINAL_BYTES: Final = 1024 * 1024 + 256 * 1024
"""Names and values of all `original-*` headers together."""
MAX_ORIGINALS: Final = 256
MAX_TEXT_BYTES: Final = 1000
_CONTENT_TYPE_BYTES: Final = 200
_COUNT_DIGITS: Final = 6
_OF_REDRIVE: Final = frozenset({"attempts", "redriven-by"})
"""Headers that whoever drives a record again adds; they are not the original's."""


def record(
    *,
    error: WireError,
    source: str,
    at_ms: int,
    key: bytes | None,
    value: bytes | None,
    headers: Iterable[tuple[str, str | bytes | None]] = (),
    content_type: str | None = None,
    shard: int | None = None,
    whole_bytes: int = 0,
    originals_bytes: int = MAX_ORIGINAL_BYTES,
) -> tuple[str | None, bytes | None, Headers]:
    """Key, value and headers of the record for a message that raised `error`.

    `at_ms` becomes ingested-at. `key`, `value` and `headers` are the original's, of the last at most
    `originals_bytes`; without a `content_type` the header of that name tells it. `whole_bytes`: how long
    the message was, when `value` is only its beginning.
    """
    originals = [(name, _bytes(content)) for name, content in headers]
    told = dict(originals)
    kind = told.get("content-type") if content_type is None else _bytes(content_type)
    originals = [header for header in originals if header[0] not in _OF_REDRIVE]
    made: Headers = [
        ("reason", error.reason.encode()),
        ("detail", _text(error.detail)),
        ("source", _text(source)),
        ("attempts", b"%d" % (attempts(told.get("attempts")) + 1)),
        ("ingested-at", str(at_ms).encode()),
    ]
    if kind is not None:
        made.append(("content-type", kind[:_CONTENT_TYPE_BYTES]))
    if shard is not None:
        made.append(("shard", b"%d" % shard))
    if "redriven-by" in told:
        made.append(("redriven-by", told["redriven-by"][:_CONTENT_TYPE_BYTES]))
    if value is not None and len(value) > MAX_VALUE_BYTES:
        whole_bytes = max(whole_bytes, len(value))
        value = value[:MAX_VALUE_BYTES]
    if whole_bytes:
        made.append(("truncated", b"%d" % whole_bytes))
    kept = _kept(originals, originals_bytes)
    if len(kept) < len(originals):
        made.append(("headers-truncated", str(len(originals) - len(kept)).encode()))
    return _vehicle_id(key), value, made + kept


def attempts(content: bytes | None) -> int:
    """What a header `attempts` says; 0 without one, or when it is no count."""
    text = content or b""
    return int(text) if text.isdigit() and len(text) <= _COUNT_DIGITS else 0


def dump(vehicle_id: str, value: bytes | None, headers: Headers) -> bytes:
    """Such a record of a vehicle as JSON, on its way to the topic."""
    return orjson.dumps(
        {
            "vehicle_id": vehicle_id,
            "value": None if value is None else b64encode(value).decode(),
            "headers": [
                [b64encode(part).decode() for part in (name.encode(), content)]
                for name, content in headers
            ],
        }
    )


def load(data: bytes) -> tuple[str, bytes | None, Headers]:
    """The record behind `dump`. Raises ValueError, LookupError or TypeError when it is none."""
    found = orjson.loads(data)
    value = None if found["value"] is None else b64decode(found["value"], validate=True)
    headers = [
        (b64decode(name, validate=True).decode(), b64decode(content, validate=True))
        for name, content in found["headers"]
    ]
    return found["vehicle_id"], value, headers


def _kept(originals: Headers, room: int) -> Headers:
    """Those that still fit; one that is too long makes room for the shorter behind it."""
    kept: Headers = []
    for name, content in originals:
        prefixed = f"original-{name}"
        size = len(prefixed.encode()) + len(content)
        if size <= room and len(kept) < MAX_ORIGINALS:
            kept.append((prefixed, content))
            room -= size
    return kept


def _vehicle_id(key: bytes | None) -> str | None:
    try:
        return check_vehicle_id((key or b"").decode())
    except (UnicodeDecodeError, WireError):
        return None


def _text(text: str) -> bytes:
    # Valid before the cut, so that only the last character can be incomplete behind it.
    return _bytes(text)[:MAX_TEXT_BYTES].decode(errors="ignore").encode()


def _bytes(content: str | bytes | None) -> bytes:
    if isinstance(content, str):
        return content.encode(errors="backslashreplace")
    return content or b""
