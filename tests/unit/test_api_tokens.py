"""Opaque tokens and cursors, and entity tags."""

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.api import etags, tokens
from twin.api.problems import Problem
from twin.api.tokens import Token
from twin.wire import ids

vehicle_ids = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda v: v != "sensor")
revisions = st.integers(0, 10**17)


@given(vehicle_ids, revisions, st.booleans())
def test_token_round_trip(vehicle_id: str, revision: int, gone: bool) -> None:
    """A token says after its way through a client what it said before."""
    token = Token(vehicle_id, revision, gone)
    assert tokens.decode_token(token.encode()) == token


@given(vehicle_ids)
def test_cursor_round_trip(vehicle_id: str) -> None:
    """A cursor continues behind the id that it was made of, vehicle or command."""
    assert tokens.decode_cursor(tokens.encode_cursor(vehicle_id)) == vehicle_id
    command = ids.command_id(vehicle_id, 1, "seed")
    assert tokens.decode_cursor(tokens.encode_cursor(command)) == command


@given(st.text(max_size=60))
def test_any_text_is_a_token_or_refused(text: str) -> None:
    """No text makes decoding fail in another way than by a refusal."""
    with contextlib.suppress(Problem):
        token = tokens.decode_token(text)
        assert token.encode() == text
    with contextlib.suppress(Problem):
        assert tokens.encode_cursor(tokens.decode_cursor(text)) == text


@pytest.mark.parametrize(
    "plain", ["5", "/car", "-1/car", "5/", "5/a b", "5/sensor", "x/car", "1" * 19 + "/car", "٣/car"]
)
def test_forged_token_is_refused(plain: str) -> None:
    """Well-formed base64url that is no number and vehicle id is refused."""
    forged = base64.urlsafe_b64encode(plain.encode()).decode().rstrip("=")
    with pytest.raises(Problem, match="Cartwin-Token"):
        tokens.decode_token(forged)


@pytest.mark.parametrize(
    ("token", "revision", "seen"),
    [
        (Token("v", 5), 5, True),
        (Token("v", 5), 6, True),
        (Token("v", 5), 4, False),
        (Token("v", 5), None, False),
        (Token("v", 5, gone=True), None, True),
        (Token("v", 5, gone=True), 4, False),
        (Token("v", 5, gone=True), 1, True),
    ],
)
def test_when_a_write_is_visible(token: Token, revision: int | None, seen: bool) -> None:
    """A write is visible from its revision on; a deletion when the deleted document is away."""
    assert token.seen_in(revision) is seen


@pytest.mark.parametrize(
    ("header", "hit"),
    [
        (None, False),
        ('"r5"', True),
        ('W/"r5"', True),
        ('"r4", "r5"', True),
        ("*", True),
        ('"r55"', False),
        ("r5", False),
        ("", False),
    ],
)
def test_if_none_match(header: str | None, hit: bool) -> None:
    """If-None-Match compares weakly with any of its tags."""
    assert etags.none_match_hits(header, etags.of_revision(5)) is hit


@pytest.mark.parametrize(
    ("header", "version"), [(None, None), ("*", "*"), ('"d0"', 0), (' "d12" ', 12)]
)
def test_if_match_names_a_version(header: str | None, version: int | str | None) -> None:
    """If-Match takes the tag that GET gave, or a star."""
    assert etags.desired_version(header) == version


@pytest.mark.parametrize("header", ["d3", '"d3", "d4"', '"d3', "", '"d\n3"'])
def test_malformed_if_match_is_refused(header: str) -> None:
    """What is no single entity tag is a bad header."""
    with pytest.raises(Problem, match="one ETag") as refused:
        etags.desired_version(header)
    assert refused.value.code == "invalid_header"


@pytest.mark.parametrize("header", ['W/"d3"', '"r3"', '"d03"', '"d-1"', '"x"', '""'])
def test_foreign_tag_matches_nothing(header: str) -> None:
    """A tag that no desired document can have is an unfulfilled condition, not a bad request."""
    with pytest.raises(Problem) as refused:
        etags.desired_version(header)
    assert (refused.value.status, refused.value.code) == (412, "version_mismatch")


def test_content_tag_tells_contents_apart() -> None:
    """Lists get another tag when they have another content, and the same for the same."""
    assert etags.of_content(b"a") == etags.of_content(b"a") != etags.of_content(b"b")
