"""Peer: gmqtt and confluent-kafka, tuned, with cartwin's promise.

gmqtt acknowledges to the broker when the handler returns, so the handler waits for Kafka's report.
uvloop, orjson, one timer that polls the producer for reports.
"""

import asyncio
import json
from typing import Any

import gmqtt
import orjson
import uvloop
from confluent_kafka import Producer

from bridge_work import FILTER, PRODUCER, TOPIC, converter, options


async def bridge() -> None:
    """Run until stopped."""
    told = options(__doc__)
    convert = converter(told, orjson.loads)
    producer = Producer({"bootstrap.servers": told.bootstrap, **PRODUCER})
    loop = asyncio.get_running_loop()

    async def arrived(
        _client: gmqtt.Client, topic: str, payload: bytes, _qos: int, _properties: Any
    ) -> int:
        key, value, headers = convert(topic, payload)
        safe = loop.create_future()

        def delivered(error: Any, _message: Any) -> None:
            if error is None:
                safe.set_result(None)
            else:
                safe.set_exception(RuntimeError(str(error)))

        producer.produce(TOPIC, value, key, headers=headers, on_delivery=delivered)
        await safe
        return 0

    client = gmqtt.Client(told.client_id, clean_session=False, receive_maximum=4000)
    client.on_message = arrived
    subscribed = asyncio.Event()
    client.on_subscribe = lambda *_: subscribed.set()
    await client.connect("127.0.0.1", told.mqtt_port)
    client.subscribe(FILTER, qos=told.qos)
    await subscribed.wait()
    print(json.dumps({"settings": PRODUCER}), flush=True)
    while True:
        producer.poll(0)
        await asyncio.sleep(0.002)


if __name__ == "__main__":
    uvloop.run(bridge())
