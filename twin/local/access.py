"""Who may write and read which MQTT topic: one table, one file that Mosquitto and HiveMQ both read.

A car's name is its vehicle id, which the broker takes from its certificate (CN) or its user name. A
service's name has an `@`, which no vehicle id has: no car can be named like a service. A car that must
go is denied everything by name.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from twin.wire import topics

Verb = Literal["read", "write", "readwrite"]


class Rule(NamedTuple):
    """May `verb` what `filter` covers; `%u` in it is the client's own name."""

    verb: Verb
    filter: str


UPLINK: Final = "uplink@cartwin"
DOWNLINK: Final = "downlink@cartwin"
PROBE: Final = "cartwin/probe/#"
"""Where the uplink finds out what a broker keeps for an absent session."""

CAR: Final = (
    *(Rule("write", filter_.replace("+", "%u")) for filter_ in topics.UP_FILTERS),
    *(Rule("read", topics.mqtt_topic("%u", leaf)) for leaf in ("desired", "commands", "ack")),
    Rule("read", topics.EDGE_TOPIC),
)
"""What every client may do under its own name, and all that a car may."""

SERVICES: Final[Mapping[str, tuple[Rule, ...]]] = {
    UPLINK: (
        *(Rule("read", filter_) for filter_ in topics.UP_FILTERS),
        Rule("read", "$SYS/#"),
        Rule("write", topics.mqtt_topic("+", "ack")),
        Rule("readwrite", PROBE),
    ),
    # `status`: to make a broker forget that of a deleted twin.
    DOWNLINK: (
        *(
            Rule("write", topics.mqtt_topic("+", leaf))
            for leaf in ("desired", "commands", "status")
        ),
        Rule("write", topics.EDGE_TOPIC),
    ),
}


def acl_file(denied: Iterable[str] = ()) -> str:
    """The rules in Mosquitto's form; what no rule allows is denied. `denied`: vehicle ids."""
    lines = [
        "# Who may write and read what, made by `cartwin broker config`. %u is the client's name:",
        "# the CN of its certificate, or its user name. What no line allows is denied.",
        "# A car, under its own name:",
        *(f"pattern {rule.verb} {rule.filter}" for rule in CAR),
    ]
    for name, rules in SERVICES.items():
        lines += ["", f"user {name}", *(f"topic {rule.verb} {rule.filter}" for rule in rules)]
    for vehicle_id in denied:
        lines += ["", f"user {vehicle_id}", "topic deny #"]
    return "\n".join(lines) + "\n"
