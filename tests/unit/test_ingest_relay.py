"""What workers tell worker 0: coalesced, bounded, true; and what is no worker's word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest import relay
from ingest.acks import RUNS, Asked, Claim
from ingest.relay import Relay, Told, read
from twin.wire.errors import WireError


def claims(found, shard=0):
    return [claim for message in found.messages(shard) for claim in read(message).claims]


def test_without_anything_to_claim_a_worker_says_that_it_runs():
    """One message, also of a shard of which nothing came."""
    assert [read(message) for message in Relay(3).messages(1)] == [Told(3, [])]


def test_a_session_is_one_claim_and_told_once_at_its_shard():
    """Runs instead of numbers; what the car itself said is covered is not told again."""
    found = Relay(1)
    for number, held_from in ((9, 4), (5, 4), (3, 3), (6, 5), (7, 5), (6, 5)):
        found.safe(b"a", Asked(7, number, held_from), 0)
    found.safe(b"a", Asked(8, 1, 1), 0)
    found.safe(b"b", Asked(7, 1, 1), 2)
    assert claims(found) == [
        Claim(b"a", 7, 5, ((5, 7), (9, 9))),
        Claim(b"a", 8, 1, ((1, 1),)),
    ]
    assert claims(found) == []
    assert claims(found, 2) == [Claim(b"b", 7, 1, ((1, 1),))]


@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=80))
def test_nothing_is_claimed_but_what_was_safe_or_said_to_be_covered(messages):
    """And with few gaps everything is."""
    found = Relay(1)
    for number, held_from in messages:
        found.safe(b"a", Asked(1, number, held_from), 0)
    safe = {number for number, _ in messages}
    for claim in claims(found):
        assert claim.held_from == max(held_from for _, held_from in messages)
        claimed = [n for first, last in claim.runs for n in range(first, last + 1)]
        assert set(claimed) <= safe
        assert len(claim.runs) <= RUNS
        if len(claim.runs) < RUNS:
            assert safe - set(claimed) <= set(range(claim.held_from))


def test_messages_are_bounded_and_so_is_what_is_remembered(monkeypatch):
    """The longest claims, cut into messages that any broker takes; of too many cars some are not told."""
    monkeypatch.setattr(relay, "MOST", 300 * RUNS)
    found, most = Relay(63), 2**63 - 1
    for car in range(400):
        for number in range(RUNS):
            name = b"%064d" % car
            found.safe(name, Asked(most, most - 2 * number, most - 2 * RUNS), 0)
    messages = list(found.messages(0))
    assert len(messages) > 5
    assert max(map(len, messages)) < relay.MESSAGE_BYTES + 2048
    assert sum(len(read(message).claims) for message in messages) == 300


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"worker":64,"safe":[]}',
        b'{"worker":true,"safe":[]}',
        b'{"worker":1,"safe":{}}',
        b'{"worker":1,"safe":[7]}',
        b'{"worker":1,"safe":[[]]}',
        b'{"worker":1,"safe":[["a",1]]}',
        b'{"worker":1,"safe":[["a",1,1,1]]}',
        b'{"worker":1,"safe":[["a",1,1,2,1]]}',
        b'{"worker":1,"safe":[["a",1,1,1,9223372036854775808]]}',
        b'{"worker":1,"safe":[["a",1,1,1,1.5]]}',
        b'{"worker":1,"safe":[["a/#",1,1,1,1]]}',
        b'{"worker":1,"safe":[[5,1,1,1,1]]}',
    ],
)
def test_what_no_worker_says_is_refused(payload):
    """Whoever writes there: no claim of it is taken, and the error is one that the reader knows."""
    with pytest.raises(WireError):
        read(payload)
