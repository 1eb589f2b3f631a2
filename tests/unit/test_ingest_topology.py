"""Who of several uplinks reads what, and what a broker's answer means for our promises."""

import itertools

import pytest

from ingest import drops, terms
from ingest.drops import Drops
from ingest.packets import Connack
from ingest.settings import UplinkSettings
from ingest.topology import MOST_WORKERS, ORDERED, SHARED, TELEMETRY, Topology
from twin.kit import metrics
from twin.wire.topics import UP_FILTERS

EVERY = {*UP_FILTERS, *SHARED}


def test_filters_are_those_of_telemetry_and_those_that_need_order():
    """Telemetry may be shared; status, reported and outcomes may not."""
    assert set(TELEMETRY) == {"vehicles/+/telemetry", "vehicles/sensor/data/+"}
    assert set(ORDERED) == {f"vehicles/+/{leaf}" for leaf in ("status", "reported", "outcomes")}
    assert tuple(f"$share/cartwin-uplink/{each}" for each in TELEMETRY) == SHARED


@pytest.mark.parametrize(
    ("worker", "workers", "can_share", "role", "wanted"),
    [
        (0, 1, True, "reads all", UP_FILTERS),
        (0, 1, False, "reads all", UP_FILTERS),
        (0, 3, True, "shares telemetry", (*ORDERED, *SHARED)),
        (2, 3, True, "shares telemetry", SHARED),
        (0, 3, False, "reads all", UP_FILTERS),
        (2, 3, False, "stands by", ()),
    ],
)
def test_each_worker_has_its_filters(worker, workers, can_share, role, wanted):
    """One reads plainly, several share telemetry, and where that is not to be had worker 0 reads."""
    found = Topology(worker, workers).subscriptions(can_share=can_share)
    assert found.role == role
    assert set(found.wanted) == set(wanted)


def test_what_another_arrangement_left_is_unsubscribed():
    """Whatever a session had before, it has what is wanted and nothing else afterwards."""
    for worker, workers, can_share in itertools.product(range(3), range(1, 4), (True, False)):
        if worker < workers:
            found = Topology(worker, workers).subscriptions(can_share=can_share)
            assert set(found.wanted) | set(found.unwanted) == EVERY
            assert not set(found.wanted) & set(found.unwanted)


@pytest.mark.parametrize(
    ("workers", "can_share"), list(itertools.product(range(1, 5), (True, False)))
)
def test_every_message_goes_to_one_worker(workers, can_share):
    """All filters are read, a plain one by one worker only, a shared one by all who share."""
    wanted = [
        set(Topology(worker, workers).subscriptions(can_share=can_share).wanted)
        for worker in range(workers)
    ]
    plain = [each for filters in wanted for each in filters if not each.startswith("$share/")]
    assert len(plain) == len(set(plain))
    assert {each.removeprefix("$share/cartwin-uplink/") for each in set().union(*wanted)} == set(
        UP_FILTERS
    )
    assert not set(TELEMETRY) & set(plain) or not any(set(SHARED) & filters for filters in wanted)


def test_names_of_sessions_are_their_own():
    """Worker 0 has the name of a single uplink, so its session goes on; the others are told apart."""
    assert Topology().client_id(3) == Topology(0, 2).client_id(3) == "cartwin-uplink-3"
    assert Topology(1, 2).client_id(3) == "cartwin-uplink-3-1"
    assert [Topology(worker, 3).leaves_for_good for worker in range(3)] == [False, True, True]


def test_numbers_that_are_no_more_are_all_that_settings_let_workers_have(monkeypatch):
    """From UPLINK_WORKERS on, up to what it may be at most."""
    assert Topology(0, 2).no_longer == range(2, MOST_WORKERS)
    monkeypatch.setenv("UPLINK_WORKERS", str(MOST_WORKERS))
    monkeypatch.setenv("UPLINK_WORKER", str(MOST_WORKERS - 1))
    assert not UplinkSettings().topology.no_longer
    monkeypatch.setenv("UPLINK_WORKERS", str(MOST_WORKERS + 1))
    with pytest.raises(ValueError, match=r"(?i)uplink_workers"):
        UplinkSettings()


GOOD = {"session_present": False, "code": 0}


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({}, ()),
        ({"session_expiry_s": 3600, "receive_maximum": 10, "maximum_qos": 1}, ()),
        ({"session_expiry_s": 3599}, ("for 3599 s",)),
        ({"receive_maximum": 9}, ("takes 9 unanswered",)),
        ({"maximum_qos": 0}, ("QoS 0 only",)),
        ({"wildcards": False}, ("no wildcard",)),
        ({"retains": False}, ("retains nothing",)),
        ({"maximum_qos": 0, "session_expiry_s": 0}, ("QoS 0 only", "for 0 s")),
    ],
)
def test_what_a_broker_does_not_grant_is_one_sentence_each(answer, words):
    """Each shortfall names what the broker says and what is needed."""
    found = terms.shortfalls(Connack(**GOOD, **answer), subscribes=True)
    assert len(found) == len(words)
    assert all(word in sentence for word, sentence in zip(words, found, strict=True))


def test_who_only_publishes_needs_no_session():
    """Session expiry, wildcards and retaining are no matter of the downlink."""
    answer = Connack(**GOOD, session_expiry_s=0, wildcards=False, retains=False)
    assert terms.shortfalls(answer, subscribes=False) == ()


@pytest.fixture
def warned(monkeypatch):
    """Numbers of dropped messages that were warned of."""
    found = []
    monkeypatch.setattr(drops.log, "warning", lambda *_, **said: found.append(said.get("dropped")))
    return found


def gauge(shard):
    return metrics.BROKER_DROPPED.labels(str(shard))._value.get()


def test_a_growth_of_the_broker_s_drops_is_warned_of(warned):
    """The metric is the broker's counter; only a larger one is news, also after its restart."""
    told = Drops(41)
    for payload, shown in ((b"0", 0), (b"3", 3), (b"3", 3), (b"10", 10), (b"0", 0), (b"2", 2)):
        told.told(payload)
        assert gauge(41) == shown
    assert warned == [3, 10, 2]


def test_drops_of_our_own_probe_are_no_car_s(warned):
    """They are taken off, whether the broker tells before or after; its restart forgets them."""
    told = Drops(42)
    told.caused(1000)
    told.told(b"1000")
    assert (gauge(42), warned) == (0, [])
    told.told(b"2000")
    assert gauge(42) == 1000
    told.caused(1000)
    assert gauge(42) == 0
    told.told(b"5")
    assert gauge(42) == 5
    assert warned == [1000, 5]


def test_a_counter_that_is_no_number_changes_nothing(warned):
    """Whatever a broker says there, the process goes on and says so."""
    told = Drops(43)
    told.told(b"many")
    assert gauge(43) == 0
    assert warned == [None]
