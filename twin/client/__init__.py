"""Clients of cartwin, sans-I/O as far as they go: whoever has the connection carries the bytes.

* car        a car's MQTT protocol: status, telemetry, configuration, commands
* config     the desired properties a car knows
* commands   what a car does with a command
* access     a broker's address, TLS and the certificates of cars
* publish    a plain MQTT publisher
* replay*    recorded cars
"""
