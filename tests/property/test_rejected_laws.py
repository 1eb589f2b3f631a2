"""Laws of records for the topic `rejected`: they always fit, and never lose the reason."""

from hypothesis import given
from hypothesis import strategies as st

from twin.wire import rejected, topics
from twin.wire.errors import Malformed
from twin.wire.ids import check_vehicle_id

# Blocks repeated: megabytes without Hypothesis drawing each byte.
LONG = st.builds(
    lambda block, size: (block * (size // len(block) + 1))[:size],
    st.binary(min_size=1, max_size=5),
    st.integers(0, 5 * 1024 * 1024) | st.integers(0, 100),
)
TEXT = st.builds(lambda text, times: text * times, st.text(st.characters()), st.integers(1, 400))
HEADERS = st.builds(
    lambda headers, times: headers * times,
    st.lists(st.tuples(st.text(max_size=30), LONG | st.text() | st.none()), max_size=4),
    st.sampled_from([1, 1, 100, 1000]),
)


@given(
    TEXT, TEXT, st.none() | LONG, st.none() | LONG, HEADERS, st.none() | TEXT,
)  # fmt: skip
def test_a_record_for_rejected_always_fits_and_reads(
    detail, source, key, value, headers, content_type
):
    """Whatever came in: within the topic's limit, valid text, a valid key or none."""
    made_key, made_value, made = rejected.record(
        error=Malformed(detail),
        source=source,
        at_ms=1,
        key=key,
        value=value,
        headers=headers,
        content_type=content_type,
    )
    # 100 of a batch and its record, 10 for the lengths of each header: more than Kafka takes.
    size = 100 + sum(10 + len(name.encode()) + len(content) for name, content in made)
    assert size + len(made_key or "") + len(made_value or b"") <= topics.REJECTED_MAX_BYTES
    said = dict(made)
    assert said["reason"] == b"malformed_json"
    for name, text in (("detail", detail), ("source", source)):
        assert text.encode(errors="backslashreplace").startswith(said[name].decode().encode())
        assert len(said[name]) <= rejected.MAX_TEXT_BYTES
    assert made_key is None or check_vehicle_id(made_key).encode() == key
    whole = value is None or len(value) <= rejected.MAX_VALUE_BYTES
    assert (made_value == value) == whole == ("truncated" not in said)
    originals = sum(name.startswith("original-") for name, _ in made)
    assert originals + int(said.get("headers-truncated", 0)) == len(headers)


@given(st.text(st.characters(), min_size=1, max_size=3), st.integers(0, 4))
def test_a_sentence_is_not_cut_inside_a_character(character, shift):
    """As many whole characters as fit: at most three bytes are given away."""
    detail = "x" * shift + character * 1200
    said = dict(
        rejected.record(error=Malformed(detail), source="s", at_ms=1, key=None, value=None)[2]
    )["detail"]
    assert rejected.MAX_TEXT_BYTES - 3 <= len(said) <= rejected.MAX_TEXT_BYTES
    assert detail.encode(errors="backslashreplace").startswith(said)
