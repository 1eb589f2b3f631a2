"""Parts that many twins have in common are kept once, and each twin still has its own."""

from tests.twin_builders import World
from twin import document


def living(vehicle_reason="ok"):
    world = World()
    world.online(1, attributes={"fleet": "berlin", "model": "m1"}, reason=vehicle_reason)
    world.telemetry(1, speed=1.0)
    return world


def test_twins_that_want_nothing_share_what_is_empty():
    """Config, delta, desired, commands and equal attributes are one object, also after a recovery."""
    world, recovered = living(), document.load(document.dump(living().twin))
    for name in ("attributes", "config", "delta", "desired", "commands"):
        assert world.twin[name] is recovered[name]
    assert world.twin["reported"] is not recovered["reported"]
    assert world.twin["applied"] is not recovered["applied"]


def test_what_one_twin_gets_no_other_has():
    """A shared part is replaced, never written into."""
    other, world = living(), living()
    before = document.dump(other.twin)
    world.desire({"a": 1})
    world.order()
    world.reported(1, 1, {"b": 2})
    world.request("attributes", {"value": {"fleet": "paris"}})
    world.score("alarm", 1)
    assert document.dump(other.twin) == before
    assert world.twin["config"] == {"b": 2}
    assert world.twin["commands"]["open"]
    assert world.twin["attributes"] == {"fleet": "paris"}


def test_a_twin_that_wants_something_keeps_it():
    """What differs is loaded as it was."""
    world = living()
    world.desire({"a": 1})
    world.order()
    assert document.load(document.dump(world.twin)) == world.twin
