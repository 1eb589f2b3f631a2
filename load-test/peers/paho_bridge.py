"""Peer: paho-mqtt and a Kafka producer, as tutorials write a bridge.

One callback: decode, check, produce, poll. paho acknowledges to the broker when the callback returns,
so what the producer still holds when the process is killed is lost.
"""

import json
from typing import Any

import paho.mqtt.client as mqtt
from confluent_kafka import Producer
from paho.mqtt.enums import CallbackAPIVersion

from bridge_work import FILTER, PRODUCER, TOPIC, converter, options


def main() -> None:
    """Run until stopped."""
    told = options(__doc__)
    convert = converter(told)
    producer = Producer({"bootstrap.servers": told.bootstrap, **PRODUCER})

    def connected(client: mqtt.Client, *_: Any) -> None:
        client.subscribe(FILTER, told.qos)

    def subscribed(*_: Any) -> None:
        print(json.dumps({"settings": PRODUCER}), flush=True)

    def arrived(_client: mqtt.Client, _data: Any, message: mqtt.MQTTMessage) -> None:
        key, value, headers = convert(message.topic, bytes(message.payload))
        while True:
            try:
                producer.produce(TOPIC, value, key, headers=headers)
                break
            except BufferError:
                producer.poll(0.1)
        producer.poll(0)

    client = mqtt.Client(CallbackAPIVersion.VERSION2, told.client_id, clean_session=False)
    client.on_connect = connected
    client.on_subscribe = subscribed
    client.on_message = arrived
    client.connect("127.0.0.1", told.mqtt_port)
    client.loop_forever()


if __name__ == "__main__":
    main()
