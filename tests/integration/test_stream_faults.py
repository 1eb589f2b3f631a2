"""The poll transport when Kafka, the agent or a topic fails (tests/stream_bench.py)."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import until
from tests.stacks import make_stack
from tests.stream_app import SESSION_S
from tests.stream_bench import PARTITIONS, Bench, Load
from twin.local import kafka as local_kafka
from twin.local import probe
from twin.local.options import Options
from twin.local.process import Child, spawn, tail

__all__ = ["make_stack"]

pytestmark = pytest.mark.integration

MB = 1024 * 1024


@pytest.fixture
def bench(kafka: str, tmp_path: Path) -> Iterator[Bench]:
    made = Bench(kafka, tmp_path)
    yield made
    made.close()


def last_words(child: Child) -> str:
    """The log of a member that ends by itself; it must end with 1."""
    until(lambda: child.exit_code() is not None, lambda: f"it goes on:\n{tail(child.log)}")
    assert child.exit_code() == 1, child.obituary()
    return child.log.read_text()


def resident_bytes(child: Child) -> int:
    return int(Path(f"/proc/{child.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_member_that_has_nothing_to_read_stays_in_the_group(bench):
    """Though its client of the group fetches nothing, for longer than a member may be idle."""
    bench.produce(1)
    member = bench.start("a", idle_s=1.0)
    bench.until_all()
    before = len(bench.times(member, "heartbeat"))
    # Two a second; behind each the client looks whether it has been idle for too long.
    bench.until(lambda: len(bench.times(member, "heartbeat")) > before + 6, "no heartbeats")
    bench.produce(1)
    bench.until_all()
    bench.check()
    assert {poll["seek"] for poll in bench.polls()} == {1}


def test_a_slow_agent_bounds_what_is_fetched(bench):
    """40 MB come into Kafka, the agent takes 100 kB at a time: the process does not hold the rest."""
    bench.produce(1)
    member = bench.start("a", poll_records=1, work_s=0.05)
    bench.until_all()
    before = resident_bytes(member)
    for _ in range(100):
        for partition in range(PARTITIONS):
            bench.produce_value(partition, os.urandom(50_000).hex())
    bench.producer.flush()
    bench.until(lambda: len(bench.polls()) > 50, "no progress")
    assert resident_bytes(member) - before < 20 * MB
    bench.stop(member)


def test_a_place_behind_the_end_of_the_log_ends_the_process(bench):
    """The log is another one: nothing of it may be taken for what was already read."""
    bench.produce(5)
    bench.commit(1000)
    words = last_words(bench.start("a"))
    assert "gives offset 0 where 1000 is next: the topic was made anew" in words
    assert bench.polls() == []


@pytest.mark.deep
def test_a_topic_that_was_deleted_ends_the_process(bench):
    """Waiting for it would look like a fleet that says nothing. The client makes sure for 30 s."""
    bench.produce(5)
    member = bench.start("a")
    bench.until_all()
    bench.admin.delete_topics([bench.topic])[bench.topic].result(30)
    words = last_words(member)
    assert f"inputs: {bench.topic} [" in words
    assert "Traceback" not in words


def test_a_broker_that_goes_and_comes_back_costs_nothing(make_stack, tmp_path):
    """Longer than the group's session: it reads on by itself where it was."""
    stack, endpoints = make_stack()
    bench = Bench(endpoints.kafka, tmp_path)
    again = None
    try:
        member = bench.start("a", work_s=0.005)
        with Load(bench):
            bench.until(lambda: all(len(o) > 60 for o in bench.offsets().values()), "no start")
            [broker] = [child for child in stack.children() if child.name == "kafka"]
            broker.terminate()
            assert broker.wait(60) is not None

            def longer_than_a_session() -> bool:
                failed = bench.times(member, "Unable connect to node")
                return bool(failed) and failed[-1] - failed[0] > SESSION_S

            bench.until(longer_than_a_session, "it does not look for the broker")
            before = len(bench.polls())
            jars = local_kafka.class_path(os.environ)
            assert jars is not None
            config = stack.data_dir / "kafka.properties"
            again = spawn(
                "kafka",
                local_kafka.server_command(Options().kafka_jvm, jars, config),
                os.environ,
                stack.data_dir / "logs" / "kafka-again.log",
            )
            probe.wait_ready("kafka", probe.kafka(endpoints.kafka), 60, child=again)
            bench.until(lambda: len(bench.polls()) > before + 20, "it does not go on")
        bench.until_all()
        bench.check()
        assert member.exit_code() is None
        bench.stop(member)
    finally:
        bench.close()
        if again is not None:
            again.kill()
