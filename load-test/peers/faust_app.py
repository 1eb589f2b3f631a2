"""Peer: stock Faust 0.15.3 (faust-streaming), agent and table in memory.

    python faust_app.py --bootstrap HOST:PORT --group NAME --partitions N [--take RECORDS]

One event at a time, as its documentation begins; with --take in batches (`Stream.take_events`), its
documented way to more throughput. Tuned: uvloop, larger fetches and polls, a larger stream buffer,
producer batches with linger, raw keys and values (no codec of Faust's in the way), no web server.
Not idempotent: Faust's producer is so only with transactions.
"""

import argparse
import asyncio
import gc
import json
import tempfile
from typing import Any

import faust
import uvloop
from faust.worker import Worker

from peer_fold import decode, fold


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--partitions", type=int, required=True)
    parser.add_argument("--take", type=int, default=0, help="records a batch; 0 = one by one")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "store": "memory://",
        "topic_partitions": options.partitions,
        "topic_disable_leader": True,
        "web_enabled": False,
        "datadir": tempfile.mkdtemp(),
        "consumer_auto_offset_reset": "earliest",
        "consumer_max_fetch_size": 4 * 2**20,
        "broker_max_poll_records": 5000,
        "broker_commit_every": 100_000,
        "broker_commit_interval": 1.0,
        "stream_buffer_maxsize": 16_384,
        "stream_wait_empty": False,
        "producer_acks": -1,
        "producer_linger_ms": 20,
        "producer_max_batch_size": 256 * 1024,
        "producer_max_request_size": 4 * 2**20,
    }
    told = {**settings, "loop": "uvloop", "take": options.take, "faust": faust.__version__}
    print(json.dumps({"settings": told}), flush=True)
    # As cartwin's worker: many objects live long, so look for cycles rarely.
    gc.set_threshold(50_000, 20, 50)
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    app = faust.App(options.group, broker=f"kafka://{options.bootstrap}", **settings)
    telemetry = app.topic(
        "telemetry", key_type=bytes, key_serializer="raw", value_type=bytes, value_serializer="raw"
    )
    # States are kept as objects; each write is serialised once for the changelog, by orjson, which Faust
    # uses where it is installed.
    states = app.Table(
        "states",
        partitions=options.partitions,
        key_type=str,
        # In a batch the current event is the last one: the key must decide the partition.
        use_partitioner=options.take > 0,
    )
    if options.take:
        app.agent(telemetry)(_batches(states, options.take))
    else:
        app.agent(telemetry)(_events(states))
    worker = Worker(app, loglevel="warning", redirect_stdouts=False)
    worker.spinner = None
    worker.execute_from_commandline()


def _events(states: Any) -> Any:
    async def each(stream: Any) -> None:
        async for value in stream:
            fields = decode(value)
            key = fields["vehicle_id"]
            state = fold(states.get(key), fields)
            if state is not None:
                states[key] = state

    return each


def _batches(states: Any, size: int) -> Any:
    async def batch(stream: Any) -> None:
        async for values in stream.take(size, within=0.05):
            for value in values:
                fields = decode(value)
                key = fields["vehicle_id"]
                state = fold(states.get(key), fields)
                if state is not None:
                    states[key] = state

    return batch


if __name__ == "__main__":
    main()
