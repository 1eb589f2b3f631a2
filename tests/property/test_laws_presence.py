"""Law 8: presence goes by session number, not by arrival."""

from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import World, status
from twin.wire import topics

# A session begins once and ends at most once; the will may be missing, the birth may be lost.
SESSIONS = st.lists(
    st.tuples(
        st.integers(0, 6), st.sampled_from([("online",), ("offline",), ("online", "offline")])
    ),
    min_size=1,
    max_size=5,
    unique_by=lambda session: session[0],
)


def statuses(sessions):
    return [
        status(state, number, shard=number % 3) for number, states in sessions for state in states
    ]


def final(records):
    world = World()
    for record in records:
        world.now += 1
        world.put(topics.PRESENCE, record)
    presence = world.twin["presence"]
    return presence["state"], presence["session"], presence["shard"]


@given(SESSIONS, st.data())
def test_any_order_and_repetition_of_statuses_ends_in_the_same_presence(sessions, data):
    """State, session and shard are those of the newest session, offline if it has ended."""
    records = statuses(sessions)
    repeated = data.draw(st.lists(st.sampled_from(records), max_size=4))
    newest, states = max(sessions)
    expected = ("offline" if "offline" in states else "online", newest, newest % 3)
    assert final(records) == expected
    assert final(data.draw(st.permutations(records + repeated))) == expected


@given(SESSIONS, st.data())
def test_a_session_that_was_left_never_comes_back(sessions, data):
    """Session numbers of the presence only grow."""
    world = World()
    last = -1
    for record in data.draw(st.permutations(statuses(sessions) * 2)):
        world.put(topics.PRESENCE, record)
        assert world.twin["presence"]["session"] >= last
        last = world.twin["presence"]["session"]
