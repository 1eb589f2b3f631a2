"""Peer: aiomqtt and aiokafka, the usual pair of an asyncio service.

`async for` over the messages, `send` into aiokafka's batches. aiomqtt acknowledges to the broker on
receipt, so what is on its way when the process is killed is lost.
"""

import json

import aiomqtt
import uvloop
from aiokafka import AIOKafkaProducer

from bridge_work import FILTER, TOPIC, converter, options


async def bridge() -> None:
    """Run until stopped."""
    told = options(__doc__)
    convert = converter(told)
    settings = {
        "acks": "all",
        "enable_idempotence": True,
        "linger_ms": 5,
        "max_batch_size": 262_144,
    }
    producer = AIOKafkaProducer(bootstrap_servers=told.bootstrap, **settings)
    await producer.start()
    client = aiomqtt.Client(
        "127.0.0.1",
        told.mqtt_port,
        identifier=told.client_id,
        clean_session=False,
        max_queued_incoming_messages=100_000,
    )
    async with client:
        await client.subscribe(FILTER, told.qos)
        print(json.dumps({"settings": settings}), flush=True)
        async for message in client.messages:
            key, value, headers = convert(str(message.topic), bytes(message.payload))
            await producer.send(TOPIC, value, key, headers=headers)


if __name__ == "__main__":
    uvloop.run(bridge())
