"""The window: in any order in, in order out."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.window import Window


@given(st.permutations(range(12)))
def test_items_are_released_in_order_and_none_before_all_its_forerunners(order):
    """Finished in any order, each item is released once, behind all that were taken before it."""
    window = Window()
    entries = [window.take(number) for number in range(12)]
    released, finished = [], set()
    for number in order:
        entries[number].done = True
        finished.add(number)
        released += window.release()
        whole = next((n for n in range(12) if n not in finished), 12)
        assert released == list(range(whole))
        assert len(window) == 12 - whole
