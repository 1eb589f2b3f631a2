"""Opaque tokens that clients hand back: Cartwin-Token (read your writes) and list cursors. Pure.

A token says "vehicle V has reached revision R" (or "is gone"); every replica can check it against
the view, so it needs no session and no secret. It grants nothing.
"""

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from twin.api.problems import Problem
from twin.wire.errors import Misaddressed
from twin.wire.ids import check_vehicle_id

_MAX_CHARS: Final = 200
_GONE: Final = "x"


@dataclass(frozen=True, slots=True)
class Token:
    """What a reader wants to see: at least `revision` of the twin, or (`gone`) that it was deleted.

    Deleting is a revision too, so the document that was deleted bears the one before.
    """

    vehicle_id: str
    revision: int
    gone: bool = False

    def encode(self) -> str:
        """The header value."""
        return encode_text(f"{_GONE if self.gone else ''}{self.revision}/{self.vehicle_id}")

    def seen_in(self, revision: int | None) -> bool:
        """Whether a view with `revision` (None: no such twin) shows it."""
        if self.gone:
            return revision != self.revision - 1
        return revision is not None and revision >= self.revision


def decode_token(text: str) -> Token:
    """Raises `Problem` invalid_token."""
    try:
        number, slash, vehicle_id = decode_text(text).partition("/")
        gone = number.startswith(_GONE)
        digits = number.removeprefix(_GONE)
        if not slash or not (digits.isascii() and digits.isdecimal()) or len(digits) > 18:
            raise ValueError("no number and id")
        return Token(check_vehicle_id(vehicle_id), int(digits), gone)
    except (ValueError, Misaddressed) as error:
        raise Problem(
            "invalid_token",
            f"after={text[:80]!r} is no token: the Cartwin-Token header of a write is accepted",
        ) from error


def encode_cursor(last_id: str) -> str:
    """A cursor that continues behind `last_id` (a vehicle or command id)."""
    return encode_text(last_id)


def decode_cursor(text: str) -> str:
    """The id behind a cursor; raises `Problem` invalid_cursor."""
    try:
        return check_cursor_id(decode_text(text))
    except (ValueError, Misaddressed) as error:
        raise Problem(
            "invalid_cursor",
            f"cursor={text[:80]!r} is none: next_cursor of the page before is accepted",
        ) from error


def check_cursor_id(text: str) -> str:
    """A vehicle id, or a command id (longer by a dot and 26 characters)."""
    vehicle_id, dot, ulid = text.rpartition(".")
    if dot and len(ulid) == 26 and ulid.isalnum():
        check_vehicle_id(vehicle_id)
        return text
    return check_vehicle_id(text)


def encode_text(text: str) -> str:
    """Any text as characters that need no escaping in an address."""
    return base64.urlsafe_b64encode(text.encode()).decode("ascii").rstrip("=")


def decode_text(text: str, most: int = _MAX_CHARS) -> str:
    """Strict: only what `encode_text` makes, of at most `most` characters. Raises ValueError."""
    if len(text) > most:
        raise ValueError("too long")
    try:
        plain = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeError) as error:
        raise ValueError("not base64url of text") from error
    if encode_text(plain) != text:
        raise ValueError("not canonical")
    return plain
