"""`cartwin bench api`: an answer that is not true does not go unseen, and latencies are what they are."""

import asyncio
import time
from collections import Counter
from itertools import islice
from typing import Any

import orjson
import pytest

import bench_api
from bench_calls import Answer, Car, Clients, Tally
from bench_records import Plan
from twin.wire.codec import decode_telemetry

CARS = {"car-1": (3, 0), "car-2": (1, 1)}
COMMANDS = {"car-1.A": "car-1", "car-2.B": "car-2"}


def tally(**parts: Any) -> dict[str, Any]:
    """As the clients tell it."""
    told = Tally(cars=CARS, commands=COMMANDS)
    return {**orjson.loads(orjson.dumps(told)), **parts}


@pytest.mark.parametrize("version", [1, 2])
def test_answers_that_are_true_are_no_problem(version: int) -> None:
    """A PATCH without an answer may count or not."""
    assert bench_api.judge(tally(), {"car-1": 3, "car-2": version}, COMMANDS) == []


@pytest.mark.parametrize(
    ("told", "versions", "commands", "named"),
    [
        ({}, {"car-1": 2, "car-2": 1}, COMMANDS, "car-1 is at 2, 3 were accepted"),
        ({}, {"car-1": 4, "car-2": 1}, COMMANDS, "car-1 is at 4, 3 were accepted"),
        ({}, {"car-1": 3, "car-2": 0}, COMMANDS, "car-2 is at 0, 1 were accepted"),
        ({}, {"car-1": 3, "car-2": 3}, COMMANDS, "car-2 is at 3, 1 were accepted"),
        ({}, {"car-1": 3, "car-2": 1}, {"car-1.A": "car-1"}, "commands are not there: car-2.B"),
        ({}, {"car-1": 3, "car-2": 1}, COMMANDS | {"c.C": "c"}, "nobody was told of: c.C"),
        ({"faults": {"a lie": 2}}, {"car-1": 3, "car-2": 1}, COMMANDS, "2 times: a lie"),
        ({"unanswered": {"patch": 1}}, {"car-1": 3, "car-2": 1}, COMMANDS, "1 calls patch"),
    ],
)
def test_answer_that_is_not_true_is_a_problem(
    told: Any, versions: Any, commands: Any, named: str
) -> None:
    """One sentence names what is wrong, and an example."""
    (problem,) = bench_api.judge(tally(**told), versions, commands)
    assert named in problem


def test_figures_are_nearest_ranks() -> None:
    """Percentiles are latencies that were measured; statuses are counted."""
    samples = [(float(n), 200 if n % 2 else 412) for n in range(200, 0, -1)]
    found = bench_api.figures(samples)
    assert found == {
        **{"n": 200, "p50": 100.0, "p90": 180.0, "p99": 198.0, "max": 200.0},
        "status": {"200": 100, "412": 100},
    }
    assert bench_api.figures([])["n"] == 0


def test_telemetry_is_of_now() -> None:
    """Every vehicle is told before one is told again, and nothing is told ahead of its time."""
    records = list(islice(bench_api.live(Plan(50, 1000, 0)), 150))
    cars = [key for key, _, _ in records]
    assert all(len(set(cars[start : start + 50])) == 50 for start in (0, 50, 100))
    now = time.time_ns() // 1_000_000
    for _, value, headers in records:
        assert now - 60_000 < decode_telemetry(value).event_time <= now
        assert now - 60_000 < int(dict(headers)["ingested-at"]) <= now


class Scripted(Clients):
    """Clients that get answers from a list."""

    def __init__(self, *answers: tuple[int, dict[str, Any]]) -> None:
        super().__init__(["http://127.0.0.1:1"], 1)
        self._answers = list(answers)

    async def _ask(self, *_: Any, **__: Any) -> Answer:
        status, body = self._answers.pop(0)
        headers = {"Cartwin-Token": "t", "ETag": '"r1"'}
        return Answer(status, headers, orjson.dumps(body))


async def patches(*answers: tuple[int, dict[str, Any]]) -> tuple[Counter[str], Car]:
    """Faults that conditional PATCHes with these answers show."""
    clients, car = Scripted(*answers), Car()
    for _ in answers:
        await clients._patch_if_match(0, "car-1", car)
    await clients.run(0, 0)
    return clients.tally.faults, car


@pytest.mark.parametrize(
    ("answers", "faults"),
    [
        ([(200, {"version": 1}), (200, {"version": 2})], []),
        ([(412, {"version": 7}), (200, {"version": 8})], []),
        ([(200, {"version": 2})], ["a PATCH was accepted at another version than its If-Match"]),
        ([(412, {"version": 0})], ["a 412 told no later version than the If-Match"]),
        ([(404, {})], ["a call answered 404: {}"]),
        (
            [(200, {"version": 1}), (200, {"version": 1})],
            [
                "a version was given to two PATCHes",
                "a PATCH was accepted at another version than its If-Match",
            ],
        ),
    ],
)
def test_patch_that_is_answered_wrongly_is_a_fault(answers: Any, faults: list[str]) -> None:
    """Versions follow on each other, and each is given once."""
    found, car = asyncio.run(patches(*answers))
    assert list(found) == faults
    assert car.accepted == sum(status == 200 for status, _ in answers)


@pytest.mark.parametrize("words", [["--seconds", "1"], ["--rate", "0"], ["--cars", "5"]])
def test_wrong_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With code 2 and a sentence that names the option."""
    with pytest.raises(SystemExit) as stop:
        bench_api.arguments(words)
    assert stop.value.code == 2
    assert words[0] in capsys.readouterr().err
