"""Between MQTT and Kafka: the uplink takes what cars say, the downlink brings what they are told.

The only speakers of MQTT among the services. Pure: packets, properties, parser, window, shapes,
accept, dispatch, rejected. Shell: connection, mqtt, outbox, uplink, downlink.
"""
