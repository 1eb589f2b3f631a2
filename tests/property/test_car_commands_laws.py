"""Laws of a car's command handling, for any order of messages and times."""

from contextlib import suppress
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from twin.client.car import Car
from twin.client.commands import RUNNING, SEEN, Commands
from twin.wire.errors import WireError

NOW = 1_790_000_000_000
FOLLOWS = {
    None: {"received", "rejected"},
    "received": {"accepted"},
    "accepted": {"running"},
    "running": {"running", "succeeded", "failed"},
}

HOSTILE = [
    b"{}",
    b'{"id":"a"}',
    b'{"id":"a","name":1e999}',
    b'{"id":"a","expires_at":9e15,"name":["ping"]}',
    b'{"version":1,"delta":{"telemetry_interval_s":{}}}',
]
# A busy machine must not decide a test.
unhurried = settings(deadline=None)

ids = st.sampled_from(["a", "b", "c", "d"])
names = st.sampled_from(["ping", "limit_power", "restore_power", "flash_lights", "fly"])
messages = st.one_of(
    st.fixed_dictionaries({"id": ids, "cancel": st.just(True)}),
    st.fixed_dictionaries(
        {
            "id": ids,
            "name": names,
            "args": st.sampled_from([{}, {"factor": 0.5}, {"factor": 7}]),
            "expires_at": st.integers(NOW - 1000, NOW + 20_000),
        }
    ),
)
steps = st.lists(st.tuples(st.integers(0, 1500), st.none() | messages), max_size=40)


def play(commands, plan):
    """All outcomes in order, the clock at the end."""
    now, outcomes = NOW, []
    for wait, message in plan:
        now += wait
        outcomes += commands.due(now)
        if message is not None:
            outcomes += commands.take(message, now)
    return outcomes, now


@unhurried
@given(steps)
def test_the_outcomes_of_a_command_are_one_legal_path(plan):
    """Repeats left out, each command goes once through received, accepted, running to one end."""
    commands = Commands()
    outcomes, now = play(commands, plan)
    outcomes += commands.due(now + 10_000)
    told = {}
    for outcome in outcomes:
        path = told.setdefault(outcome.command_id, [])
        if outcome not in path:
            path.append(outcome)
    for path in told.values():
        states = [None, *(outcome.state for outcome in path)]
        for before, after in pairwise(states):
            assert after in FOLLOWS[before], states
        assert path[-1].final
    assert commands.next_at is None


@unhurried
@given(steps)
def test_the_power_limit_is_what_the_last_finished_command_left(plan):
    """Only a limit_power or restore_power that succeeded moves the limit, once each."""
    commands = Commands()
    outcomes, _ = play(commands, plan)
    names = {}
    limit, ended = 1.0, set()
    now = NOW
    replay = Commands()
    for wait, message in plan:
        now += wait
        replay.due(now)
        if message is not None:
            first = message["id"] not in names
            answers = replay.take(message, now)
            if first and answers[0].state == "received":
                names[message["id"]] = message
            elif first:
                names[message["id"]] = {}
    for outcome in outcomes:
        if outcome.state == "succeeded" and outcome.command_id not in ended:
            ended.add(outcome.command_id)
            message = names[outcome.command_id]
            if message["name"] == "limit_power":
                limit = message["args"]["factor"]
            elif message["name"] == "restore_power":
                limit = 1.0
    assert commands.power_limit == limit


@settings(unhurried, max_examples=10)
@given(st.integers(SEEN, SEEN + 50), st.integers(1, RUNNING))
def test_memory_of_commands_is_bounded_and_running_ones_are_never_forgotten(many, running):
    """However many ids come, a bounded number is kept, and a running command cannot start twice."""
    commands = Commands()
    flash = {"name": "flash_lights", "expires_at": NOW + 60_000}
    for n in range(running):
        commands.take({"id": f"r{n}", **flash}, NOW)
    for n in range(many):
        commands.take({"id": f"x{n}", "name": "fly", "expires_at": NOW + 60_000}, NOW)
    assert len(commands._last) <= SEEN
    for n in range(running):
        (again,) = commands.take({"id": f"r{n}", **flash}, NOW)
        assert again.state == "running"


@unhurried
@given(
    st.sampled_from(["commands", "desired", "telemetry"]),
    st.binary(max_size=200) | st.sampled_from(HOSTILE),
)
def test_no_bytes_from_the_cloud_break_a_car(leaf, payload):
    """Whatever arrives is answered or named as unusable; the car goes on."""
    car = Car("car-000001", {})
    car.connect(NOW)
    with suppress(WireError):
        car.receive(f"vehicles/car-000001/{leaf}", payload, NOW)
    assert car.telemetry(NOW, {"speed": 1.0}).sequence == 1
