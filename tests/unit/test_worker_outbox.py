"""Outputs that travel with the state, and which of them are told again."""

import orjson

from twin.outbox import Outbox, Output, untold


def output(kind: str, key: str, value: object, revision: int = 1) -> Output:
    return Output(kind, key, None if value is None else orjson.dumps(value), revision)


def test_what_goes_in_comes_out_for_inputs_that_are_not_committed():
    """In order, with the bytes as they were; a committed input's outputs stay behind."""
    box = Outbox()
    first = [output("changes", "car-1", {"id": "car-1:1:0", "what": {"ü": [1.5, None]}})]
    second = [
        output("ledger", "car-1/car-1.x", {"state": "queued"}, 4),
        output("ledger", "car-1/car-1.y", None, 4),
        output("replies", "r-1", {"status": 201}, 4),
    ]
    box.add("presence", 7, first)
    box.add("requests", 3, second)
    header = box.dump()
    assert list(untold(header, {"presence": 7, "requests": 3})) == first + second
    assert list(untold(header, {"presence": 8, "requests": 3})) == second
    assert list(untold(header, {"presence": 8, "requests": 4})) == []
    assert list(untold(header, {})) == first + second


def test_the_size_counts_what_the_header_will_hold():
    """So that a batch can be cut before a record is too large for Kafka."""
    box = Outbox()
    box.add("requests", 1, [output("downlink", "car-1", {"x": "y" * 10_000})])
    assert 10_000 < box.size <= len(box.dump())
