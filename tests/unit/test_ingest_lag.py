"""How long messages may have waited at a broker, told by marks that come back."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.lag import AGAIN_S, BEHIND_S, Lag


def test_what_comes_before_the_first_mark_may_have_waited():
    """A session that is taken up again; when the mark is back, all that waited is taken."""
    lag = Lag(b"me")
    mark = lag.due(100)
    assert lag.behind(100)
    lag.heard(mark)
    assert not lag.behind(100.1)


def test_a_mark_that_comes_late_leaves_a_backlog():
    """What came behind it waited as long; only the next, if it is quick, ends it."""
    lag = Lag(b"me")
    first = lag.due(100)
    lag.heard(first)
    slow = lag.due(102)
    assert not lag.behind(105)
    assert lag.behind(105.1), "three minutes nobody reads"
    lag.heard(slow)
    assert lag.behind(282)
    quick = lag.due(282)
    assert len({first, slow, quick}) == 3
    lag.heard(quick)
    assert not lag.behind(282.1)


def test_a_process_that_stood_still_knows_it_at_once():
    """No timer needs to run before the first message after it."""
    lag = Lag(b"me")
    lag.heard(lag.due(100))
    assert lag.behind(160)


def test_a_mark_that_is_out_is_not_sent_again_too_soon():
    """A full queue may have dropped it; what comes back counts from when it was first sent."""
    lag = Lag(b"me")
    mark = lag.due(100)
    assert lag.due(100 + AGAIN_S - 1) is None
    assert lag.due(100 + AGAIN_S) == mark
    assert lag.due(100 + AGAIN_S + 1) is None
    lag.heard(mark)
    assert lag.behind(100 + AGAIN_S)


def test_marks_of_others_tell_nothing():
    """A session may hold those of an earlier connection, and its own a second time."""
    lag = Lag(b"me")
    first = lag.due(100)
    for mark in (b"", b"other 1", b"me 2", b"x"):
        lag.heard(mark)
    assert lag.behind(100)
    lag.heard(first)
    lag.due(200)
    lag.heard(first)
    assert lag.behind(200)


@given(st.lists(st.tuples(st.floats(0.01, 9), st.integers(0, 2))))
def test_nothing_that_waited_longer_is_called_new(steps):
    """A queue in order, read whenever it is: what is not behind waited BEHIND_S at most."""
    lag, queue, now = Lag(b"me"), [], 0.0
    for wait, reads in steps:
        now += wait
        mark = lag.due(now)
        if mark is not None:
            queue.append(mark)
        queue.append(now)
        for _ in range(reads * 2):
            if not queue:
                break
            taken = queue.pop(0)
            if isinstance(taken, bytes):
                lag.heard(taken)
            elif not lag.behind(now):
                assert now - taken <= BEHIND_S
