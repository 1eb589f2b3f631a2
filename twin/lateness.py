"""Telemetry that is no news: counted per vehicle, told apart as late or a duplicate.

A record is late when at least one of its values was older than the twin's. It is a duplicate when it is
the very record that the twin's values are of, once more at another offset (a QoS 1 repetition): of
equal event time, session and sequence. A copy of an older record cannot be told from a late one, and
counts as late. A record read again by its offset is neither (law 2). Of a clock that is ahead the
uplink judges; such a record never comes here.
"""

from twin.wire.records import Counts, Twin
from twin.wire.telemetry import Sample


def count(twin: Twin, sample: Sample, newer: int) -> bool:
    """Count a record of which only `newer` values, not all, were newer; whether it is a duplicate."""
    duplicate = (
        not newer
        and bool(sample.names)
        and all(_is_of(twin, name, sample) for name in sample.names)
    )
    known = twin.get("counts", Counts(late=0, duplicates=0))
    twin["counts"] = Counts(
        late=known["late"] + (not duplicate), duplicates=known["duplicates"] + duplicate
    )
    return duplicate


def _is_of(twin: Twin, name: str, sample: Sample) -> bool:
    entry = twin["reported"][name]
    return (entry["t"], entry["n"], entry["s"]) == (
        sample.event_time,
        sample.session,
        sample.sequence,
    )
