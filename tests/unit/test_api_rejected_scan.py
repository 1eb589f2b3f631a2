"""Rejected records, the newest first, over partitions that can only be read forwards."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.rejected_fakes import FakeTopic
from twin.api import rejected_scan
from twin.api.rejected_scan import Record, Wanted, batches, decode_cursor, encode_cursor, scan
from twin.wire import redrive
from twin.wire.errors import Invalid, TooLarge

WRONG, LARGE = Invalid("x"), TooLarge("y")


def filled(count, partitions=3, every=1):
    """`count` records in turn over the partitions; every so many is too large."""
    topic = FakeTopic(partitions)
    for at in range(count):
        topic.add(LARGE if at % every == 0 else WRONG, at=at, partition=at % partitions)
    return topic


def everything(topic, wanted, limit, clock=None):
    """All pages, one after the other."""
    pages, cursor = [], None
    while True:
        page = scan(topic, wanted, cursor, limit, *([clock] if clock else []))
        pages.append(page)
        cursor = page.cursor
        if cursor is None:
            return pages


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=120),
    st.integers(1, 30),
    st.sampled_from([None, "too_large"]),
)
@settings(max_examples=60)
def test_pages_together_are_all_that_matches_the_newest_first(records, limit, reason):
    """Of any spread over partitions: each once, in order of time, in pages of the limit."""
    topic = FakeTopic(5)
    expected = []
    for at, (partition, large) in enumerate(records):
        made = topic.add(LARGE if large else WRONG, at=at, partition=partition)
        if reason is None or large:
            expected.append(made)
    pages = everything(topic, Wanted(reason=reason), limit)
    assert [one.id for page in pages for one in page.items] == expected[::-1]
    assert all(len(page.items) == limit for page in pages[:-2])


def test_a_page_reads_hardly_more_than_it_shows():
    """Of 5,000 records, the newest 25 cost blocks at the ends."""
    topic = filled(5_000, partitions=12)
    assert len(scan(topic, Wanted(), None, 25).items) == 25
    assert topic.reads <= 12 * 16


def test_a_call_looks_at_a_bounded_number_of_records_and_goes_on(monkeypatch):
    """A filter that matches one in many gives pages without it, until it is found."""
    monkeypatch.setattr(rejected_scan, "MOST_SCANNED", 1_000)
    topic = filled(6_000, partitions=2, every=6_000)
    pages = everything(topic, Wanted(reason="too_large"), 10)
    assert [one.at for page in pages for one in page.items] == [0]
    assert len(pages) > 2
    assert topic.reads == 6_000


def test_a_call_ends_when_its_time_is_over():
    """Having looked at something, so that the next goes on from there."""
    topic = filled(5_000, partitions=1, every=5_000)
    ticks = iter(range(10_000))
    pages = everything(topic, Wanted(reason="too_large"), 10, clock=lambda: next(ticks) * 2.0)
    assert [len(page.items) for page in pages][-1] == 1
    assert len(pages) > 3


def test_a_vehicle_costs_its_partition_only():
    """The key tells where its records are."""
    topic = filled(300, partitions=3)
    topic.add(WRONG, at=1000, key=b"car-1")
    page = scan(topic, Wanted(vehicle_id="car-1"), None, 10)
    assert [one.at for one in page.items] == [1000]
    assert topic.reads <= 101


def test_a_time_costs_what_lies_within():
    """Kafka finds offsets by time."""
    topic = filled(2_000, partitions=4)
    page = scan(topic, Wanted(at_from=1_990), None, 200)
    assert [one.at for one in page.items] == list(range(1_999, 1_989, -1))
    assert page.cursor is None
    assert topic.reads <= 4 * 3


def test_clocks_that_differ_a_little_lose_nothing():
    """A record that is older than the one before it is found by its own time."""
    topic = FakeTopic(1)
    for at in (1_000, 50_000, 20_000, 200_000):
        topic.add(WRONG, at=at)
    page = scan(topic, Wanted(at_to=30_000), None, 10)
    assert [one.at for one in page.items] == [20_000, 1_000]


def test_records_that_went_meanwhile_are_passed_over():
    """Retention may overtake a cursor."""
    topic = filled(30, partitions=1)
    cursor = scan(topic, Wanted(), None, 10).cursor
    topic.lows[0] = 15
    page = scan(topic, Wanted(), cursor, 10)
    assert [one.at for one in page.items] == [19, 18, 17, 16, 15]
    topic.lows[0] = 30
    assert scan(topic, Wanted(), cursor, 10) == ([], None, None)


@given(st.dictionaries(st.integers(0, 9999), st.integers(0, 10**17), min_size=1, max_size=50))
def test_a_cursor_means_what_it_was_made_of(places):
    """There and back."""
    assert decode_cursor(encode_cursor(places)) == places


@given(
    st.sets(st.tuples(st.integers(0, 3), st.integers(0, 400)), max_size=80),
    st.sampled_from([1, 3_000_000]),
)
def test_batches_hold_each_record_once_and_are_bounded(places, size):
    """No span is read twice, one a partition in a batch, and bytes stay within the room."""
    told = redrive.read([])
    records = [Record(*place, 0, None, told, size) for place in sorted(places)]
    held = []
    for spans in batches(records):
        inside = [
            one for one in records
            if one.partition in spans
            and spans[one.partition][0] <= one.offset < spans[one.partition][1]
        ]  # fmt: skip
        assert inside
        assert len(inside) == 1 or sum(one.size for one in inside) <= rejected_scan._BATCH_BYTES
        held += inside
    assert sorted(held) == sorted(records)
