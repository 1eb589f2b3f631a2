"""Peer: Quix Streams 3.28, `apply(..., stateful=True)` on its RocksDB store with changelog.

    python quix_app.py --bootstrap HOST:PORT --group NAME --state-dir DIR --every N

Tuned: bytes in (no JSON or schema-registry deserializer in the way), checkpoints by number of messages
besides the interval, larger producer batches. Its producer is idempotent by default. A checkpoint
writes one changelog record per key that it touched.
"""

import argparse
import json
from typing import Any

import quixstreams
from quixstreams import Application, State

from peer_fold import decode, fold


def main() -> None:
    """Run until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bootstrap", required=True)
    parser.add_argument("--group", required=True)
    parser.add_argument("--state-dir", required=True)
    parser.add_argument("--every", type=int, default=0, help="messages a checkpoint")
    options = parser.parse_args()
    settings: dict[str, Any] = {
        "commit_interval": 1.0,
        "commit_every": options.every,
        "consumer_poll_timeout": 0.5,
        "producer_extra_config": {
            "acks": "all",
            "linger.ms": 20,
            "batch.num.messages": 50_000,
            "batch.size": 1_000_000,
            "queue.buffering.max.messages": 500_000,
        },
        "consumer_extra_config": {"fetch.min.bytes": 1, "fetch.wait.max.ms": 100},
    }
    told = {**settings, "quixstreams": quixstreams.__version__, "store": "rocksdb"}
    print(json.dumps({"settings": told}), flush=True)
    app = Application(
        broker_address=options.bootstrap,
        consumer_group=options.group,
        auto_offset_reset="earliest",
        state_dir=options.state_dir,
        loglevel="WARNING",
        **settings,
    )
    telemetry = app.topic("telemetry", key_deserializer="bytes", value_deserializer="bytes")
    app.dataframe(telemetry).apply(_twin, stateful=True)
    app.run()


def _twin(value: bytes, state: State) -> None:
    before: Any = state.get("twin")
    after = fold(before, decode(value))
    if after is not None:
        state.set("twin", after)


if __name__ == "__main__":
    main()
