"""What a broker grants in CONNACK against what our promises need. Pure.

Said by MQTT 5 brokers only; one of 3.1.1 grants what it has. A shortfall makes the process not ready,
and messages go on being taken: nothing would be gained by leaving them at such a broker.
"""

from typing import Final

from ingest.packets import Connack

SESSION_EXPIRY_LEAST_S: Final = 3_600
RECEIVE_LEAST: Final = 10
"""Unanswered publishes; HiveMQ's default."""


def shortfalls(answer: Connack, *, subscribes: bool) -> tuple[str, ...]:
    """One sentence for each promise that cannot be kept on these terms."""
    found = []
    if answer.maximum_qos < 1:
        found.append("the broker offers QoS 0 only (maximum QoS 0), so it may lose any message")
    if answer.receive_maximum < RECEIVE_LEAST:
        found.append(
            f"the broker takes {answer.receive_maximum} unanswered messages at a time (receive"
            f" maximum); {RECEIVE_LEAST} are needed to bring commands in time"
        )
    if not subscribes:
        return tuple(found)
    if answer.session_expiry_s is not None and answer.session_expiry_s < SESSION_EXPIRY_LEAST_S:
        found.append(
            f"the broker keeps our session for {answer.session_expiry_s} s (session expiry);"
            f" {SESSION_EXPIRY_LEAST_S} s are needed, or a longer outage loses messages"
        )
    if not answer.wildcards:
        found.append("the broker has no wildcard subscriptions, by which we read all cars")
    if not answer.retains:
        found.append("the broker retains nothing, so who is online is unknown after a restart")
    return tuple(found)
