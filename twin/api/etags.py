"""Entity tags: `"r<revision>"` of a twin, `"d<version>"` of desired, a hash for lists. Pure.

GET compares weakly (RFC 9110, 13.1.2). A write compares strongly, and the owner does it: the API
only reads the number out of If-Match.
"""

import hashlib
import re
from typing import Final, Literal

from twin.api.problems import Problem

ANY: Final = "*"
_TAG: Final = re.compile(r'(W/)?"([\x21\x23-\x7e]*)"')
_DESIRED: Final = re.compile(r"d(0|[1-9][0-9]{0,17})")


def of_revision(revision: int) -> str:
    """The tag of a twin document."""
    return f'"r{revision}"'


def of_desired(version: int) -> str:
    """The tag of a desired document."""
    return f'"d{version}"'


def of_content(body: bytes) -> str:
    """The tag of a body that has no version of its own."""
    return f'"h{hashlib.blake2b(body, digest_size=12).hexdigest()}"'


def none_match_hits(header: str | None, current: str) -> bool:
    """True when the client's If-None-Match names `current`, so that 304 is the answer."""
    if header is None:
        return False
    if header.strip() == ANY:
        return True
    return current in (f'"{tag}"' for _weak, tag in _TAG.findall(header))


def desired_version(header: str | None) -> int | Literal["*"] | None:
    """The version that If-Match asks for; None without a header, `*` for "it exists".

    Raises `Problem`: invalid_header when it is no single entity tag, version_mismatch when it is
    a tag that no desired document can have.
    """
    if header is None:
        return None
    text = header.strip()
    if text == ANY:
        return "*"
    match = _TAG.fullmatch(text)
    if match is None:
        raise Problem(
            "invalid_header",
            f"If-Match {text[:80]!r} is not accepted: one ETag as GET .../desired gives it,"
            ' like "d3", or *',
        )
    version = None if match[1] else _DESIRED.fullmatch(match[2])
    if version is None:
        raise Problem(
            "version_mismatch",
            f'If-Match {text[:80]} can match no desired document; its ETags look like "d3"',
        )
    return int(version[1])
