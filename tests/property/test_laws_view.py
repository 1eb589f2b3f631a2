"""What Redis has of a twin is its document in other words: byte by byte the same."""

from hypothesis import given
from hypothesis import strategies as st

from tests.property.test_laws_packed import STEPS, run
from tests.twin_builders import CAR
from twin.packed import load
from twin.view.rows import INDEX
from twin.wire import keys


def check(twin):
    """The row's text is no longer than the document, and says the same."""
    made = twin.row(CAR)
    assert keys.document_of(b"[head]\n" + made.text) == made.document == twin.dump(CAR)
    assert len(made.text) <= len(made.document)
    return made


@given(st.lists(STEPS, min_size=1, max_size=25))
def test_the_text_in_redis_is_the_document_in_columns(log):
    """Signals together, apart, in turn, suspect or none; at once, and after a restart."""
    _, resting = run(log)
    if resting.rest is not None:
        made = check(resting.rest)
        again = check(load(made.document)[0])
        assert (INDEX.numbers(again), again.standing, again.version) == (
            INDEX.numbers(made), made.standing, made.version
        )  # fmt: skip
