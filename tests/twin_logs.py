"""Random logs of one car for property tests: small steps on a `World`.

Cars, brokers, scorer, people and time, with few sessions, few commands and few values, so that repeats,
races and refusals are common.
"""

from hypothesis import strategies as st

from tests.twin_builders import CAR, World, telemetry
from twin.apply import Context, Limits
from twin.document import dump
from twin.effects import Effects
from twin.policy import parse_policy
from twin.wire import topics
from twin.wire.ids import command_id

POLICY = """
[[rule]]
name = "limit-power-on-alarm"
health = "alarm"
command = "limit_power"
lane = "a"
ttl_s = 1
cool_down_s = 0
max_per_fleet_per_minute = 2
[[rule.require]]
signal = "speed"
max_age_s = 60
[[rule]]
name = "ask"
health = "warning"
command = "flash_lights"
ttl_s = 1
cool_down_s = 0
approval = true
approval_ttl_s = 1
"""
CONTEXT = Context(
    policy=parse_policy(POLICY, "test"),
    limits=Limits(open_commands=3, attributes=2),
    stale_after_ms=40,
    debounce_ms=20,
    overdue_after_ms=30,
    desired_ttl_ms=90,
)
FEW = st.integers(0, 3)
SESSIONS = st.integers(1, 4)
STEPS = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 15, 50])),
    st.tuples(st.just("telemetry"), SESSIONS, FEW, FEW),
    st.tuples(st.sampled_from(["online", "offline"]), SESSIONS),
    st.tuples(st.just("reported"), SESSIONS, FEW, FEW, FEW),
    st.tuples(st.just("desire"), st.sampled_from(["patch", "put"]), st.sampled_from("ab"), FEW),
    st.tuples(
        st.just("order"),
        st.sampled_from([0.02, 0.1, 0, 1]),
        st.sampled_from([None, "k"]),
        st.sampled_from(["default", "a", "b"]),
    ),
    st.tuples(st.just("answer"), st.sampled_from(["approve", "refuse"])),
    st.tuples(st.just("cancel"), FEW),
    st.tuples(
        st.just("outcome"),
        FEW,
        st.sampled_from(["received", "accepted", "rejected", "running", "succeeded", "failed"]),
    ),
    st.tuples(st.just("delivery"), FEW, st.sampled_from(["sent", "refused"]), SESSIONS),
    st.tuples(st.just("told"), FEW, st.sampled_from(["sent", "refused"]), SESSIONS),
    st.tuples(st.just("cancelled"), FEW, st.sampled_from(["sent", "refused"]), SESSIONS),
    st.tuples(st.just("score"), st.sampled_from(["normal", "alarm", "warning"]), FEW),
    st.tuples(
        st.just("due"), st.sampled_from(["command", "presence", "desired", "decision"]), FEW, FEW
    ),
    st.tuples(st.just("attributes"), st.sampled_from("abcd"), st.sampled_from([None, "k"])),
    st.just(("delete",)),
)
LOGS = st.lists(STEPS, min_size=1, max_size=25)
LASTING = st.lists(STEPS.filter(lambda step: step[0] != "delete"), min_size=1, max_size=25)


def ident(world: World, index: int) -> str:
    """A command the world has, or one it never had."""
    known = sorted(world.ledger.entries)
    return known[index % len(known)] if known else command_id(CAR, 0, "none")


def do(world: World, step: tuple) -> Effects | None:
    """Carry out one step; None for waiting."""
    verb, *args = step
    if verb == "wait":
        world.now += args[0]
        return None
    if verb == "telemetry":
        session, age, sequence = args
        return world.put(
            topics.TELEMETRY, telemetry(world.now - age, session, sequence, speed=float(age))
        )
    if verb in ("online", "offline"):
        return getattr(world, verb)(args[0], attributes={f"s{args[0]}": "x"})
    if verb == "reported":
        session, sequence, value, version = args
        said = {"a": value} if sequence % 2 else {"b": {"c": value, "d": value or None}}
        return world.reported(session, sequence, said, desired_version=version)
    if verb == "desire":
        operation, name, value = args
        wanted = {"c": value} if name == "b" and value > 1 else value
        return world.desire({name: wanted or None}, op=operation)
    if verb == "order":
        ttl_s, key, lane = args
        keyed = {"idempotency_key": key, "body_hash": str(ttl_s)} if key else {}
        return world.order(ttl_s=ttl_s, lane=lane, **keyed)[1]
    if verb == "answer":
        return world.answer(args[0], "ask")
    if verb in ("cancel", "outcome", "delivery"):
        return getattr(world, verb)(ident(world, args[0]), *args[1:])
    if verb == "told":
        return world.delivery(str(args[0]), *args[1:], kind="desired", reason=f"s{args[2]}")
    if verb == "cancelled":
        return world.delivery(ident(world, args[0]), *args[1:], kind="cancel")
    if verb == "score":
        return world.score(args[0], args[1], event_time=world.now)
    if verb == "due":
        of, index, early = args
        refs = {
            "command": ident(world, index),
            "presence": str(index),
            "desired": str(index),
            "decision": "ask",
        }
        return world.due(of, refs[of], world.now - early)
    if verb == "attributes":
        name, key = args
        keyed = {"request_id": key, "idempotency_key": key, "body_hash": name} if key else {}
        return world.request("attributes", {"value": {name: "x", "fleet": "f"}}, **keyed)
    return world.request("delete", {})


def run(log: list[tuple]) -> tuple[World, list[Effects]]:
    world = World(CONTEXT)
    return world, [effects for step in log if (effects := do(world, step)) is not None]


def document(world: World) -> bytes | None:
    return None if world.state is None else dump(world.state)
