"""The embedded stack: Kafka, Redis, an MQTT broker and our own processes on one machine.

* options      what to start: data directory, ports, broker, processes, outside addresses
* errors       what can go wrong on the user's side, each as one sentence
* data         the data directory: lock, marker, endpoints.json; `running(data_dir)`
* ports        free ports and taken ports
* process      a child with a log file that ends with its parent
* probe        is a part ready? (Kafka metadata, Redis PING, MQTT CONNACK, HTTP /readyz)
* jars, kafka  Java programs from Maven, and Kafka's broker made of them
* redis, mqtt  commands and configuration of the other two
* broker_*     configuration of MQTT brokers from what they must keep; `access`: who may what;
               `ca`: certificates; `refusals`: whom a broker refused; HiveMqBroker.java;
               `account`: what Mosquitto may not do that root started
* amqtt_*      the pure Python MQTT broker in its own process
* topics       Kafka topics from the catalogue
* stack        `Stack(options)`: the plan in order, supervision, stop
* foreground   `run(options)`: `cartwin up` with progress, one JSON line, signals, exit code

Nothing here imports a service: processes are started by command line and joined by addresses.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twin.local.data import Endpoints, running
    from twin.local.errors import LocalError
    from twin.local.foreground import run
    from twin.local.options import External, Options, Ports
    from twin.local.stack import Stack

__all__ = [
    "Endpoints",
    "External",
    "LocalError",
    "Options",
    "Ports",
    "Stack",
    "run",
    "running",
]

_HOME: Final = {
    "Endpoints": "data",
    "External": "options",
    "LocalError": "errors",
    "Options": "options",
    "Ports": "options",
    "Stack": "stack",
    "run": "foreground",
    "running": "data",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the broker process lives in this package, too, and needs none of it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
