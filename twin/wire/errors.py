"""Errors that describe bad input. Bad input is data: each one has a public reason code.

* CartwinError                  anything cartwin raises on purpose
  + WireError                   a message that cannot be accepted; carries `reason` and `detail`
    - Malformed                 the bytes are no message at all
    - UnknownSchema             the Avro id or content type is not one of ours
    - Misaddressed              topic, key and payload disagree on whose message it is
    - Invalid                   a field is missing, has the wrong type or an impossible value
    - TooLarge                  longer than the limit
    - TooMany                   more messages than one vehicle may send
"""

from typing import Literal

Reason = Literal[
    "malformed_json",
    "malformed_avro",
    "unknown_schema",
    "unknown_content_type",
    "unknown_topic",
    "bad_vehicle_id",
    "identity_mismatch",
    "wrong_partition",
    "missing_field",
    "bad_type",
    "out_of_range",
    "unknown_signal",
    "unknown_command",
    "unknown_vehicle",
    "clock_ahead",
    "too_large",
    "too_deep",
    "empty",
    "limit_reached",
    "rate_limited",
]
"""Why a record went to `rejected`. The list is public: codes are added, never renamed.

docs/rejected.md says what each one means.
"""


class CartwinError(Exception):
    """Anything cartwin raises on purpose; the message is fit for a user."""


class WireError(CartwinError):
    """A message that cannot be accepted.

    `reason` is the public code, `detail` one sentence naming the input and what is accepted.
    """

    default: Reason = "malformed_json"

    def __init__(self, detail: str, *, reason: Reason | None = None) -> None:
        super().__init__(detail)
        self.reason: Reason = reason or self.default
        self.detail = detail


class Malformed(WireError):
    """The bytes are no message at all."""


class UnknownSchema(WireError):
    """The Avro schema id or the content type is not one of ours."""

    default: Reason = "unknown_schema"


class Misaddressed(WireError):
    """Topic, key and payload disagree on whose message it is."""

    default: Reason = "identity_mismatch"


class Invalid(WireError):
    """A field is missing, has the wrong type or an impossible value."""

    default: Reason = "bad_type"


class TooLarge(WireError):
    """The message or document is over its limit."""

    default: Reason = "too_large"


class TooMany(WireError):
    """The vehicle sends more than one may."""

    default: Reason = "rate_limited"
