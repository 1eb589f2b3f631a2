"""A group of members on real Kafka: what they were handed against what is in the log.

The members of `tests/stream_app.py` write every poll to one file before they call `done`. `Bench`
reads that file as a history of hand-overs and compares it with the topic.
"""

import itertools
import json
import os
import sys
import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from tests.processes import until
from twin.kit import kafka as kit_kafka
from twin.local.process import Child, spawn, tail

ROOT = Path(__file__).parents[1]
PARTITIONS = 4
ROWS = 12
_numbers = itertools.count()


class Bench:
    """An input topic, a changelog with `ROWS` rows, a group, and members of the group."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        self.bootstrap = bootstrap
        # The process id keeps runs on one external Kafka apart.
        name = f"stream-{os.getpid()}-{next(_numbers)}"
        self.topic, self.changelog, self.group = name, f"{name}-changelog", f"{name}-group"
        self.admin = AdminClient({"bootstrap.servers": bootstrap})
        self.producer = kit_kafka.producer(bootstrap, "test-stream")
        self.children: list[Child] = []
        self._folder = folder
        self._out = folder / "handed-over.jsonl"
        self._client = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": self.group, "enable.auto.commit": False}
        )
        self._written = itertools.count()
        new = [NewTopic(topic, PARTITIONS, 1) for topic in (self.topic, self.changelog)]
        for created in self.admin.create_topics(new).values():
            created.result(30)
        for row in range(ROWS):
            self.producer.produce(self.changelog, b'{"epoch":1}', f"row-{row}", row % PARTITIONS)
        self.producer.flush()

    def close(self) -> None:
        for child in self.children:
            child.kill()
        self._client.close()

    def produce(self, rounds: int) -> None:
        """One record to each partition per round, and all of them acknowledged."""
        for _ in range(rounds):
            for partition in range(PARTITIONS):
                self.produce_value(partition, str(next(self._written)))
        self.producer.flush()

    def produce_value(self, partition: int, value: str) -> None:
        self.producer.produce(self.topic, value, partition=partition)
        self.producer.poll(0)

    def start(
        self, member: str, *, poll_records: int = 20, work_s: float = 0.0, idle_s: float = 300.0
    ) -> Child:
        argv = [
            sys.executable, str(ROOT / "tests" / "stream_app.py"),
            "--bootstrap", self.bootstrap, "--group", self.group, "--topic", self.topic,
            "--changelog", self.changelog, "--partitions", str(PARTITIONS), "--member", member,
            "--out", str(self._out), "--poll-records", str(poll_records), "--work-s", str(work_s),
            "--idle-s", str(idle_s),
        ]  # fmt: skip
        log = self._folder / f"{member}-{len(self.children)}.log"
        child = spawn(member, argv, {**os.environ, "PYTHONPATH": str(ROOT)}, log)
        self.children.append(child)
        return child

    def stop(self, child: Child) -> None:
        """End it by SIGTERM; it must end well."""
        child.terminate()
        assert child.wait(30) == 0, child.obituary()

    def times(self, child: Child, event: str) -> list[float]:
        """When its log told events that begin so, seconds since 1970."""
        lines = child.log.read_bytes().rpartition(b"\n")[0].splitlines()
        told = [json.loads(line) for line in lines if line.startswith(b"{")]
        return [
            datetime.fromisoformat(line["timestamp"]).timestamp()
            for line in told
            if line["event"].startswith(event)
        ]

    def polls(self) -> list[dict[str, Any]]:
        """All hand-overs so far; a line that is being written is not there yet."""
        if not self._out.exists():
            return []
        whole = self._out.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def offsets(self) -> dict[int, list[int]]:
        """Partition -> offsets in the order in which they were handed over."""
        found: dict[int, list[int]] = {partition: [] for partition in range(PARTITIONS)}
        for poll in self.polls():
            for partition, offset, _ in poll["records"]:
                found[partition].append(offset)
        return found

    def ends(self) -> dict[int, int]:
        """Partition -> offset behind the last record (or marker) of the log."""
        return {
            partition: self._client.get_watermark_offsets(
                TopicPartition(self.topic, partition), timeout=30
            )[1]
            for partition in range(PARTITIONS)
        }

    def committed(self) -> dict[int, int]:
        """Partition -> committed offset; 0 where there is none."""
        places = [TopicPartition(self.topic, partition) for partition in range(PARTITIONS)]
        return {p.partition: max(p.offset, 0) for p in self._client.committed(places, timeout=30)}

    def commit(self, offset: int) -> None:
        """The place of the group, in all partitions, as if a member had committed it."""
        places = [TopicPartition(self.topic, partition, offset) for partition in range(PARTITIONS)]
        told = [ConsumerGroupTopicPartitions(self.group, places)]
        for done in self.admin.alter_consumer_group_offsets(told).values():
            done.result(30)

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Poll the condition; fails at once when a member that nobody stopped has ended."""

        def alive() -> Any:
            for child in self.children:
                assert child.exit_code() in (None, 0, -9), child.obituary()
            return condition()

        def why() -> str:
            logs = "\n".join(f"{c.name}:\n{tail(c.log)}" for c in self.children)
            return f"{what}; handed over: {summary(self.offsets())}\n{logs}"

        return until(alive, why)

    def until_all(self) -> None:
        """Wait until the last record of each partition was handed over."""
        ends = self.ends()
        self.until(
            lambda: all(o and max(o) == ends[p] - 1 for p, o in self.offsets().items()),
            f"not everything up to {ends} was handed over",
        )

    def check(self, start: int = 0) -> None:
        """Nothing is missing, nothing out of order, and nothing comes twice without a new seek.

        And all of it was fetched by librdkafka.
        """
        assert {poll["member_fetches"] for poll in self.polls()} == {0}
        following: dict[tuple[int, int, int], int] = {}
        reached = dict.fromkeys(range(PARTITIONS), start)
        for poll in self.polls():
            for partition, offset, _ in poll["records"]:
                place = (poll["pid"], poll["seek"], partition)
                if place in following:
                    assert offset == following[place], f"in a row: {place}, {offset}"
                assert offset <= reached[partition], f"{partition}: a hole before {offset}"
                following[place] = offset + 1
                reached[partition] = max(reached[partition], offset + 1)
        assert reached == self.ends()
        values = {(p, o): v for poll in self.polls() for p, o, v in poll["records"]}
        assert values == {place: v for place, v in self.log().items() if place[1] >= start}

    def log(self) -> dict[tuple[int, int], str]:
        """(partition, offset) -> value of every record in the topic, committed or not."""
        reader = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "reader",
                "isolation.level": "read_uncommitted",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        reader.assign([TopicPartition(self.topic, p, OFFSET_BEGINNING) for p in range(PARTITIONS)])
        found: dict[tuple[int, int], str] = {}
        left = set(range(PARTITIONS))
        while left:
            message = reader.poll(30)
            assert message is not None, "Kafka gives no more"
            if message.error() is None:
                found[message.partition(), message.offset()] = message.value().decode()
            else:
                left.discard(message.partition())
        reader.close()
        return found


class Load:
    """Produces all the time, from entering to leaving."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._enough.wait(0.02):
            self._bench.produce(5)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self._thread.join()


def summary(offsets: dict[int, list[int]]) -> dict[int, str]:
    return {p: f"{len(o)} in {min(o)}..{max(o)}" for p, o in offsets.items() if o}


def owners(polls: list[dict[str, Any]]) -> dict[int, str]:
    """Partition -> the member that was handed its last records."""
    return {p: poll["member"] for poll in polls for p, _, _ in poll["records"]}


def firsts(polls: list[dict[str, Any]]) -> dict[int, int]:
    """Partition -> the first offset that was handed over."""
    found: dict[int, int] = {}
    for poll in polls:
        for partition, offset, _ in poll["records"]:
            found.setdefault(partition, offset)
    return found
