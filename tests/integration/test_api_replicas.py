"""Two replicas of the API and one worker, all real: writes through both at once are decided one by one.

The order of decisions is that of the topic `requests`; what every reply says is held against the fold
of that log.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any
from uuid import uuid4

import httpx
import orjson
import pytest

from tests.kafka_log import read_topic
from tests.processes import DEADLINE_S, Process
from tests.stacks import MakeStack, make_module_stack
from twin.local.data import Endpoints
from twin.wire import topics

pytestmark = pytest.mark.integration

__all__ = ["make_module_stack"]

WRITERS = 8
PATCH = {"Content-Type": "application/merge-patch+json"}


class Replicas:
    """The servers, and a client of each replica."""

    def __init__(self, endpoints: Endpoints, processes: list[Process]) -> None:
        self.kafka = endpoints.kafka
        self.apis = [
            httpx.Client(base_url=process.url, timeout=DEADLINE_S)
            for process in processes
            if process.name == "api"
        ]

    def __getitem__(self, number: int) -> httpx.Client:
        return self.apis[number % len(self.apis)]

    def at_once(self, calls: list[Callable[[], Any]]) -> list[Any]:
        """The results of calls that begin together, each in a thread of its own."""
        together = Barrier(len(calls))

        def one(call: Callable[[], Any]) -> Any:
            together.wait(DEADLINE_S)
            return call()

        with ThreadPoolExecutor(len(calls)) as threads:
            return list(threads.map(one, calls))


@pytest.fixture(scope="module")
def replicas(
    make_module_stack: MakeStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Replicas]:
    _, endpoints = make_module_stack()
    folder = tmp_path_factory.mktemp("processes")
    processes = []
    for number, name in enumerate(("worker", "api", "api")):
        own = folder / str(number)
        own.mkdir()
        processes.append(Process(name, endpoints, own).start())
    for process in processes:
        process.ready()
    replicas = Replicas(endpoints, processes)
    yield replicas
    for api in replicas.apis:
        api.close()
    assert [process.stop() for process in processes] == [0, 0, 0]


@pytest.fixture
def car(replicas: Replicas) -> str:
    """The path of a twin that exists."""
    path = f"/v1/twins/replicas-{uuid4().hex[:12]}"
    assert replicas[0].put(f"{path}/attributes", json={"fleet": "berlin"}).status_code == 201
    return path


def patch(api: httpx.Client, car: str, value: Any, **headers: str) -> httpx.Response:
    """Ask for properties; header names with underscores."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    content = orjson.dumps(value)
    return api.patch(f"{car}/desired", content=content, headers={**PATCH, **named})


def desired(api: httpx.Client, car: str) -> tuple[int, dict[str, Any]]:
    """Version and properties as they can be read."""
    answer = api.get(f"{car}/desired")
    assert answer.status_code == 200, answer.text
    return answer.json()["version"], answer.json()["properties"]


def check_against_the_log(replicas: Replicas, car: str) -> Counter[int]:
    """Every decision about desired, in the order of the log, is the only right one; how many of each."""
    version, statuses = 0, Counter[int]()
    for message in read_topic(replicas.kafka, topics.REQUESTS):
        request = orjson.loads(message.value())
        if request["vehicle_id"] != car.rpartition("/")[2] or request["kind"] != "desired":
            continue
        reply = replicas[0].get(f"/v1/requests/{request['request_id']}").json()
        if request.get("if_match", version) == version:
            version += 1
            assert (reply["status"], reply["body"]["version"]) == (200, version)
        else:
            assert (reply["status"], reply["body"]["version"]) == (412, version)
        statuses[reply["status"]] += 1
    return statuses


def test_of_writers_that_name_one_version_one_is_accepted(replicas: Replicas, car: str) -> None:
    """Exactly one conditional PATCH of a version wins; all others are told the version it made."""
    for version in range(5):
        answers = replicas.at_once(
            [
                lambda n=n, version=version: patch(
                    replicas[n], car, {"writer": n}, If_Match=f'"d{version}"'
                )
                for n in range(WRITERS)
            ]
        )
        assert Counter(a.status_code for a in answers) == {200: 1, 412: WRITERS - 1}
        (winner,) = [n for n, answer in enumerate(answers) if answer.status_code == 200]
        assert answers[winner].headers["ETag"] == f'"d{version + 1}"'
        for answer in answers:
            assert answer.json()["version"] == version + 1
        for api in replicas.apis:
            assert desired(api, car) == (version + 1, {"writer": winner})


def test_no_increment_is_lost(replicas: Replicas, car: str) -> None:
    """Clients that read, add one and write by If-Match count right, whatever they meet."""
    each = 6

    def count(writer: int) -> Counter[int]:
        met = Counter[int]()
        turn = writer
        while met[200] < each:
            turn += 1
            version, properties = desired(replicas[turn], car)
            value = {"counter": properties.get("counter", 0) + 1}
            answer = patch(replicas[turn + 1], car, value, If_Match=f'"d{version}"')
            met[answer.status_code] += 1
            if answer.status_code == 200:
                assert answer.json()["version"] == version + 1
                continue
            assert answer.status_code == 412, answer.text
            current = answer.json()["version"]
            assert current > version
            assert desired(replicas[turn], car)[0] >= current
        return met

    met = sum(
        replicas.at_once([lambda n=n: count(n) for n in range(WRITERS)]), start=Counter[int]()
    )
    assert met[200] == WRITERS * each
    for api in replicas.apis:
        assert desired(api, car) == (met[200], {"counter": met[200]})
    assert check_against_the_log(replicas, car) == met


def test_patches_without_a_condition_are_all_merged(replicas: Replicas, car: str) -> None:
    """Concurrent PATCHes of different properties all count, each with a version of its own."""
    answers = replicas.at_once(
        [lambda n=n: patch(replicas[n], car, {f"p{n}": n}) for n in range(4 * WRITERS)]
    )
    assert {answer.status_code for answer in answers} == {200}
    versions = [answer.json()["version"] for answer in answers]
    assert sorted(versions) == list(range(1, 4 * WRITERS + 1))
    for n, answer in enumerate(answers):
        assert answer.json()["properties"][f"p{n}"] == n
    for api in replicas.apis:
        assert desired(api, car) == (4 * WRITERS, {f"p{n}": n for n in range(4 * WRITERS)})
    assert check_against_the_log(replicas, car) == {200: 4 * WRITERS}


def command(api: httpx.Client, car: str, key: str, body: dict[str, Any]) -> httpx.Response:
    """Ask for a command under a key."""
    return api.post(f"{car}/commands", json=body, headers={"Idempotency-Key": key})


def entry(answer: httpx.Response) -> dict[str, Any]:
    """The ledger entry in an answer, without what its owner notes when it writes the entry."""
    notes = ("epoch", "revision")
    return {name: value for name, value in answer.json().items() if name not in notes}


def commands(api: httpx.Client, car: str) -> list[str]:
    """Ids of all commands, the newest first."""
    return [entry["id"] for entry in api.get(f"{car}/commands").json()["items"]]


def test_one_key_on_both_replicas_is_one_command(replicas: Replicas, car: str) -> None:
    """The same key and body at once gives one command, and everybody the same answer."""
    made = []
    for number in range(5):
        body = {"name": "ping", "args": {"n": number}}
        first, *others = replicas.at_once(
            [
                lambda n=n, number=number, body=body: command(replicas[n], car, f"k{number}", body)
                for n in range(4)
            ]
        )
        assert first.status_code in (200, 201), first.text
        for answer in others:
            assert answer.status_code in (200, 201), answer.text
            assert entry(answer) == entry(first)
            assert answer.headers["Location"] == first.headers["Location"]
        made.insert(0, first.json()["id"])
    for api in replicas.apis:
        assert commands(api, car) == made


def test_one_key_with_two_bodies_is_one_command(replicas: Replicas, car: str) -> None:
    """Of two bodies under one key at once exactly one becomes a command; the other is 409."""
    made = []
    for number in range(5):
        answers = replicas.at_once(
            [
                lambda n=n, number=number: command(
                    replicas[n], car, f"k{number}", {"name": "ping", "args": {"n": n}}
                )
                for n in range(2)
            ]
        )
        won, lost = sorted(range(2), key=lambda n: answers[n].status_code)
        assert answers[won].status_code == 201, answers[won].text
        assert answers[lost].status_code == 409, answers[lost].text
        assert answers[lost].json()["code"] == "idempotency_conflict"
        assert answers[won].json()["args"] == {"n": won}
        made.insert(0, answers[won].json()["id"])
    for api in replicas.apis:
        assert commands(api, car) == made


def test_refusal_under_a_key_does_not_hide_what_was_done(replicas: Replicas, car: str) -> None:
    """One key, one body that the owner must refuse and one that it accepts: what is told is so."""
    accepted = 0
    for number in range(8):
        key = f"k{number}"
        refused, other = replicas.at_once(
            [
                lambda key=key: patch(
                    replicas[0], car, {"a": 0}, Idempotency_Key=key, If_Match='"d99"'
                ),
                lambda key=key, number=number: patch(
                    replicas[1], car, {"a": number}, Idempotency_Key=key
                ),
            ]
        )
        assert refused.status_code in (409, 412), refused.text
        assert other.status_code in (200, 409), other.text
        accepted += other.status_code == 200
        assert desired(replicas[number], car)[0] == accepted
