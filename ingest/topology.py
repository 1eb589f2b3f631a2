"""Which uplink process reads what of a broker: filters to subscribe to and to leave. Pure.

    one worker                    reads everything, plainly
    several, broker can share     all read telemetry of one shared subscription; worker 0 alone reads
                                  status, reported and outcomes, which need order and what is retained
    several, broker cannot        worker 0 reads everything, plainly; the others stand by

A session outlives its process, so it may have subscriptions of another arrangement. They are left
after the new ones are there: in between a message comes twice, which the twin applies once; the
other way round it would come to nobody.
"""

from typing import Final, Literal, NamedTuple

from twin.wire import topics

GROUP: Final = "cartwin-uplink"
MOST_WORKERS: Final = 64
"""Workers of a shard at most, so numbers are below it (UPLINK_WORKERS)."""

TELEMETRY: Final = tuple(
    each
    for each in topics.UP_FILTERS
    if topics.read_mqtt_topic(each.replace("+", "id"))[0] == "telemetry"
)
"""Filters whose messages any worker may take, in any order."""
ORDERED: Final = tuple(each for each in topics.UP_FILTERS if each not in TELEMETRY)
"""Filters that one worker reads, in the order of the broker."""

Role = Literal["reads all", "shares telemetry", "stands by"]


def shared(topic_filter: str) -> str:
    """The filter under which the uplinks of a broker get each message once between them."""
    return f"$share/{GROUP}/{topic_filter}"


SHARED: Final = tuple(shared(each) for each in TELEMETRY)
EVERY: Final = (*ORDERED, *TELEMETRY, *SHARED)
"""All that a session may be subscribed to in one arrangement or another."""


class Subscriptions(NamedTuple):
    """What a session should have, and what it should not have any more."""

    role: Role
    wanted: tuple[str, ...]
    unwanted: tuple[str, ...]


class Topology(NamedTuple):
    """The place of a process: `worker` of `workers` at one broker."""

    worker: int = 0
    workers: int = 1

    @property
    def leaves_for_good(self) -> bool:
        """Whether the others take over from a worker that is stopped in order."""
        return self.worker > 0

    @property
    def no_longer(self) -> range:
        """Numbers of workers that there may have been, and of which there are none any more."""
        return range(self.workers, MOST_WORKERS)

    def client_id(self, shard: int) -> str:
        """The name of its session at the broker number `shard`."""
        return f"{GROUP}-{shard}" + (f"-{self.worker}" if self.worker else "")

    def subscriptions(self, *, can_share: bool) -> Subscriptions:
        """What it subscribes to at a broker that has shared subscriptions, or has not."""
        wanted: tuple[str, ...]
        role: Role
        if self.workers > 1 and can_share:
            role, wanted = "shares telemetry", (*(ORDERED if self.worker == 0 else ()), *SHARED)
        elif self.worker == 0:
            role, wanted = "reads all", topics.UP_FILTERS
        else:
            role, wanted = "stands by", ()
        return Subscriptions(role, wanted, tuple(each for each in EVERY if each not in wanted))
