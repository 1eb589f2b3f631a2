"""The poll transport on real Kafka: what it hands over against what is in the log."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer, TopicPartition

from tests.processes import until
from tests.stream_app import POISON
from tests.stream_bench import PARTITIONS, ROWS, Bench, Load, firsts, owners
from twin.local.process import Child

pytestmark = pytest.mark.integration


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path)
    yield made
    made.close()


def test_a_new_group_begins_at_the_oldest_record_and_a_restart_where_it_ended(bench):
    """Every record once and in order, over a stop by SIGTERM under load."""
    bench.produce(50)
    first = bench.start("a", work_s=0.01)
    with Load(bench):
        bench.until(lambda: all(len(o) > 60 for o in bench.offsets().values()), "no start")
        bench.stop(first)
        before = bench.offsets()
        assert before == {p: list(range(len(o))) for p, o in before.items()}
        assert bench.committed() == {p: len(o) for p, o in before.items()}
    bench.start("a")
    bench.until_all()
    bench.check()
    assert bench.offsets() == {p: list(range(end)) for p, end in bench.ends().items()}
    assert {poll["restored"] for poll in bench.polls()} == {ROWS}


def test_after_sigkill_under_load_it_goes_on_at_the_committed_offset(bench):
    """Nothing is missing; what is repeated is exactly what was not committed."""
    with Load(bench):
        first = bench.start("a", work_s=0.01)
        # Some of it is committed, some is not.
        bench.until(lambda: len(bench.polls()) > 50 and all(bench.committed().values()), "no start")
        first.kill()
        committed, known = bench.committed(), bench.polls()
        assert any(max(o) + 1 < bench.ends()[p] for p, o in bench.offsets().items())
        bench.start("a")
        bench.until(lambda: len(bench.polls()) > len(known) + 5, "no restart")
    bench.until_all()
    bench.check()
    assert firsts(bench.polls()[len(known) :]) == committed
    assert all(committed[p] <= max(o) + 1 for p, o in bench.offsets().items())


@pytest.mark.deep
def test_members_come_and_go_and_are_killed_without_a_hole(bench):
    """The union of all members has every record; repeats follow a rebalance only.

    With workers, and what came of each record: tests/integration/test_worker_owners.py.
    """
    everything = set(range(PARTITIONS))
    with Load(bench):
        bench.start("a", work_s=0.005)
        bench.until(
            lambda: owners(bench.polls()) == dict.fromkeys(everything, "a"), "a has not all"
        )
        for member, end in (("b", bench.stop), ("c", Child.kill)):
            known = len(bench.polls())
            joined = bench.start(member, work_s=0.005)

            def shared(known: int = known, member: str = member) -> bool:
                now = owners(bench.polls()[known:])
                return now.keys() == everything and set(now.values()) == {"a", member}

            bench.until(shared, f"a and {member} do not share the partitions")
            end(joined)
        known = len(bench.polls())
        bench.until(
            lambda: owners(bench.polls()[known:]) == dict.fromkeys(everything, "a"),
            "a has not taken over",
        )
    bench.until_all()
    bench.check()


def test_behind_records_that_were_deleted_it_goes_on_at_the_next(bench):
    """A hole between the committed offset and the oldest record is believed, and once only."""
    bench.produce(60)
    bench.commit(10)
    gone = [TopicPartition(bench.topic, partition, 40) for partition in range(PARTITIONS)]
    for deleted in bench.admin.delete_records(gone).values():
        deleted.result(30)
    bench.start("a")
    bench.until_all()
    bench.check(start=40)
    assert firsts(bench.polls()) == dict.fromkeys(range(PARTITIONS), 40)
    # In each partition: the start, and one more to make sure of the hole.
    assert bench.polls()[-1]["placed"] == 2 * PARTITIONS


def test_the_marker_of_a_transaction_is_a_hole_like_any_other(bench):
    """It reads on behind markers after one more look; aborted records are handed over, too.

    Our own producers are idempotent and use no transactions; whoever writes to an input topic in one
    is heard before it commits.
    """
    writer = Producer({"bootstrap.servers": bench.bootstrap, "transactional.id": bench.topic})
    writer.init_transactions(30)
    bench.produce(5)
    for end, marked in ((writer.commit_transaction, 11), (writer.abort_transaction, 22)):
        writer.begin_transaction()
        for number in range(5):
            for partition in range(PARTITIONS):
                writer.produce(bench.topic, f"{end.__name__} {number}", partition=partition)
        writer.flush()
        end(30)
        # The broker writes the markers in its own time.
        until(lambda marked=marked: set(bench.ends().values()) == {marked}, "no markers")
        bench.produce(5)
    bench.start("a")
    bench.until_all()
    log = bench.log()
    expected = {p: [o for q, o in sorted(log) if q == p] for p in range(PARTITIONS)}
    assert expected == {p: [o for o in range(27) if o not in (10, 21)] for p in range(PARTITIONS)}
    assert bench.offsets() == expected
    values = {(p, o): v for poll in bench.polls() for p, o, v in poll["records"]}
    assert values == log
    assert "abort_transaction 4" in values.values()
    # In each partition: the start, and at most one for each marker.
    assert bench.polls()[-1]["placed"] <= 3 * PARTITIONS


def test_a_poll_that_was_not_done_is_not_committed(bench):
    """A process that dies over a poll finds the very same records again."""
    bench.produce(30)
    bench.commit(30)
    bench.produce_value(2, POISON)
    bench.producer.flush()
    for start in range(2):
        dying = bench.start("a")
        until(lambda child=dying: child.exit_code() is not None, "it does not die")
        assert dying.exit_code() == 3, dying.obituary()
        assert bench.committed() == dict.fromkeys(range(PARTITIONS), 30)
        assert bench.offsets()[2] == [30] * (start + 1)
