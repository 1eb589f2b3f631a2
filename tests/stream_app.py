"""A worker on `twin.stream` that writes down what it is handed, for tests that kill it.

One line per poll, appended and fsynced before `done`, in a file that all members share, so the lines
are in the order of the hand-overs of the whole group:

    {"member", "pid", "seek", "placed", "member_fetches", "restored",
     "records": [[partition, offset, value], ...]}

`seek` counts Faust's seeks (one a rebalance), `placed` how often the client of the inputs was given a
place, once for each partition, `member_fetches` the fetch requests of aiokafka, which is only the
group's member; `restored` the rows of the changelog that had been restored when the poll came. A value
longer than 20 is written as its length. Its log tells each heartbeat.
"""

import argparse
import asyncio
import json
import os
from pathlib import Path
from typing import Any, NoReturn

from aiokafka.client import AIOKafkaClient  # type: ignore[import-untyped]
from faust.worker import Worker

from twin.changelog import Reader, Tail
from twin.kit import logs
from twin.stream import Poll, PollSchema, StreamApp
from twin.stream.fetch import Source

SESSION_S = 2.0
"""After this long a member that is not heard of is not one any more."""
POISON = "poison"
"""A poll with this value ends the process before `done`, and after the line is written."""


class Counts:
    """What the two clients did."""

    placed = 0
    member_fetches = 0

    @classmethod
    def begin(cls) -> None:
        """Count from now on."""
        send, assign = AIOKafkaClient.send, Source._assign

        async def counting_send(self: Any, node: Any, request: Any, **how: Any) -> Any:
            what = type(request).__name__
            cls.member_fetches += what.startswith("Fetch")
            if what.startswith("Heartbeat"):
                logs.get(__name__).info("heartbeat")
            return await send(self, node, request, **how)

        def counting_assign(self: Source, gone: Any, new: Any) -> None:
            cls.placed += len(new)
            assign(self, gone, new)

        AIOKafkaClient.send = counting_send
        Source._assign = counting_assign  # type: ignore[method-assign]


class Rows:
    """Restores by reading the changelog partitions that go with the inputs."""

    def __init__(self, bootstrap: str, changelog: str) -> None:
        self._reader = Reader(bootstrap)
        self._changelog = changelog
        self.count = 0

    async def restore(self, places: Any, _generation: int, wanted: Any) -> None:
        tails = {(self._changelog, tp.partition): Tail() for tp in places}
        if await asyncio.to_thread(self._reader.read, tails, wanted):
            self.count = sum(len(tail.newest) for tail in tails.values())

    def mark(self) -> None:
        """Nothing."""

    def committed(self, _mark: None, _offsets: Any) -> None:
        """Nothing."""


def end(error: Exception) -> NoReturn:
    """As the worker ends when it cannot go on."""
    logs.get(__name__).error("cannot go on", error=str(error))
    os._exit(1)


def short(value: bytes | None) -> str:
    """A value, or how long it is."""
    assert value is not None
    return value.decode() if len(value) <= 20 else str(len(value))


def main() -> None:
    """Run until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--changelog", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--member", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--poll-records", type=int, required=True)
    parser.add_argument("--work-s", type=float, required=True)
    parser.add_argument("--idle-s", type=float, required=True)
    told = parser.parse_args()
    logs.configure(told.member, "info", "json")
    Counts.begin()
    app = StreamApp(
        told.group,
        broker=f"kafka://{told.bootstrap}",
        store="memory://",
        topic_partitions=told.partitions,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        datadir=told.out.parent / "faust",
        consumer_auto_offset_reset="earliest",
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=0.5,
        broker_commit_interval=0.3,
        broker_max_poll_interval=told.idle_s,
        consumer_group_instance_id=told.member,
        broker_max_poll_records=told.poll_records,
        stream_wait_empty=True,
        # So that there is something that waits when a rebalance comes.
        bulk_topics=frozenset({told.topic}),
    )
    # A table, as the twin worker has: it makes Faust use its own assignor.
    changelog = app.topic(
        told.changelog,
        key_type=str,
        key_serializer="raw",
        value_type=None,
        value_serializer="json",
        partitions=told.partitions,
        compacting=True,
        internal=True,
        allow_empty=True,
    )
    app.Table(told.changelog, changelog_topic=changelog, partitions=told.partitions, key_type=str)
    app.restorer = rows = Rows(told.bootstrap, told.changelog)
    app.on_fault = end
    out = os.open(told.out, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    @app.agent(app.topic(told.topic, schema=PollSchema()), name="written")
    async def write(stream: Any) -> None:
        async for event in stream.events():
            poll: Poll = event.value
            poll.begin()
            records = [[r.partition, r.offset, short(r.value)] for r in poll.records]
            line = {
                "member": told.member,
                "pid": os.getpid(),
                "seek": poll.seek,
                "placed": Counts.placed,
                "member_fetches": Counts.member_fetches,
                "restored": rows.count,
                "records": records,
            }
            os.write(out, json.dumps(line).encode() + b"\n")
            os.fsync(out)
            if any(value == POISON for _, _, value in records):
                os._exit(3)
            await asyncio.sleep(told.work_s)
            poll.done()

    worker = Worker(app, loglevel="info", redirect_stdouts=False, override_logging=False)
    worker.spinner = None
    worker.execute_from_commandline()


if __name__ == "__main__":
    main()
