"""Twins at rest: what they refuse to decide alone, and documents that somebody else made."""

import orjson
import pytest

from tests.twin_builders import CAR, T0, World, sample, telemetry
from twin import document, packed, state
from twin.wire.errors import Malformed


def living(*signals):
    world = World()
    world.online(1)
    for one in signals or [{"speed": 1.0, "engine_load": 0.5}]:
        world.now += 1000
        world.telemetry(session=1, **one)
    return world


def rest_of(world):
    return packed.pack(world.twin)


NEW = telemetry(T0 + 5000, 1, speed=2.0, engine_load=0.6)


def test_new_values_are_taken():
    """Values, their origin, the revision, the time and that the car was heard."""
    rest = rest_of(living())
    revision = rest.version[2]
    assert rest.observe(sample(NEW), 3, 77, T0 + 6000) == packed.NEW
    twin = packed.unpack(rest, CAR)
    assert twin["reported"]["speed"] == {"v": 2.0, "t": T0 + 5000, "n": 1, "s": 1, "o": 77}
    assert (twin["revision"], twin["updated_at"]) == (revision + 1, T0 + 6000)
    assert (twin["presence"]["seen"], twin["applied"]["telemetry"]) == (T0 + 6000, [3, 77])


@pytest.mark.parametrize(
    ("record", "what"),
    [
        (telemetry(T0, 1, speed=2.0, engine_load=0.6), packed.LATE),
        (telemetry(T0 + 1000, 1, speed=1.0, engine_load=0.5), packed.DUPLICATE),
    ],
)
def test_a_record_without_news_is_counted(record, what):
    """It makes no revision, and nobody has heard the car by it; but it was applied."""
    world = living()
    rest, before = rest_of(world), orjson.loads(rest_of(world).dump(CAR))
    assert rest.observe(sample(record), 3, 77, T0 + 6000) == what
    assert orjson.loads(rest.dump(CAR)) == {
        **before,
        "applied": {**before["applied"], "telemetry": [3, 77]},
        "counts": {"late": int(what == packed.LATE), "duplicates": int(what == packed.DUPLICATE)},
    }


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (telemetry(T0 + 1000, 1, speed=2.0, engine_load=0.6), "of the same time"),
        (telemetry(T0, 1, speed=2.0), "older with other signals"),
        (telemetry(T0 + 5000, 1, suspect=["speed"], speed=999.0, engine_load=0.6), "suspect"),
    ],
)
def test_what_is_not_plainly_new_is_left_to_apply(record, why):
    """Nothing is changed, so `apply` sees the twin as it was."""
    rest = rest_of(living())
    before = rest.dump(CAR)
    assert rest.observe(sample(record), 3, 77, T0 + 6000) is None, why
    assert rest.dump(CAR) == before


def test_a_stale_car_that_speaks_again_is_left_to_apply():
    """Its presence changes, which is told."""
    world = living()
    world.now += 10_000_000
    world.due("presence", "1", world.now)
    assert world.twin["presence"]["state"] == "stale"
    assert rest_of(world).observe(sample(NEW), 3, 77, world.now) is None


def test_telemetry_of_an_ended_session_is_not_hearing_the_car():
    """As long as the presence knows of a newer session."""
    world = living()
    world.online(2)
    rest, seen = rest_of(world), world.twin["presence"]["seen"]
    assert rest.observe(sample(NEW), 3, 77, T0 + 60_000) == packed.NEW
    assert rest.seen == seen


def test_a_record_applied_before_is_known():
    """By offset on its partition; a topic that was made anew begins again."""
    rest = rest_of(living())
    assert rest.observe(sample(NEW), 3, 0, T0) == packed.REPEATED
    assert rest.observe(sample(NEW), 4, 0, T0) == packed.NEW


def test_a_new_owner_shows_in_the_version_alone():
    """Law 5."""
    rest = rest_of(living())
    before = packed.unpack(rest, CAR)
    rest.written_by(9)
    assert rest.version == (9, before["created_at"], before["revision"])
    assert packed.unpack(rest, CAR) == {**before, "epoch": 9}


@pytest.mark.parametrize(
    "signals",
    [
        [{"speed": 1.0}],
        [{"speed": 1.0, "engine_load": 0.5}, {"fuel_level": 0.5}],
    ],
)
def test_documents_in_another_order_of_fields_are_loaded(signals):
    """Those of an earlier release, and of other tools."""
    twin = living(*signals).twin
    plain = orjson.loads(document.dump(twin))
    turned = {name: plain[name] for name in reversed(plain)}
    for data in (orjson.dumps(turned), orjson.dumps(turned, option=orjson.OPT_INDENT_2)):
        rest, fields = packed.load(data)
        assert {**fields, "reported": plain["reported"]} == plain
        assert orjson.loads(rest.dump(CAR)) == plain
        assert packed.unpack(rest, CAR) == twin


def test_a_document_is_loaded_whatever_its_names():
    """Configuration may be named like parts of the document."""
    world = living()
    world.reported(
        1, 1, {"reported": {"speed": {"v": 9}}, "presence": {"seen": 1}, "a": '},"reported":{'}
    )
    shown = rest_of(world).dump(CAR)
    assert packed.unpack(packed.load(shown)[0], CAR) == world.twin
    assert packed.load(document.dump(world.twin))[0].dump(CAR) == shown


NUMBERS = [
    *("1", "-0", "0.5", "1.5E+3", "1e-300", "9" * 40, "1 "),
    *("01", "1.", ".5", "-", "+1", "1e", "1e+", "0x1", "NaN", ""),
]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_value_is_a_number_as_json_has_them(number):
    """The quick way accepts no text that a parser would not."""
    shown = rest_of(living({"speed": 7.0, "engine_load": 7.0})).dump(CAR)
    assert shown.count(b"7.0") == 2
    for changed in (
        shown.replace(b"7.0", number.encode()),
        shown.replace(b"7.0", number.encode(), 1),
    ):
        try:
            plain = orjson.loads(changed)
        except orjson.JSONDecodeError:
            with pytest.raises(Malformed):
                packed.load(changed)
        else:
            assert orjson.loads(packed.load(changed)[0].dump(CAR)) == plain


@pytest.mark.parametrize(
    ("here", "there"),
    [
        (b'"t":1790000001000', b'"t":1790000001001'),
        (b'"n":1', b'"n":01'),
        (b'"s":', b'"s": '),
        (b',"o":0', b',"o":0,"q":"suspect"'),
        (b',"o":0', b',"o":-1'),
        (b'"speed":{"v"', b'"sp\\u0065ed":{"v"'),
        (b'"speed":{"v"', b'"speed" :{"v"'),
        (b'"speed":{"v"', b'"fuel_level":{"v"'),
    ],
)
def test_signals_that_are_written_otherwise_are_read_all_the_same(here, there):
    """Those of another origin each, suspect, spaced or escaped: the quick way leaves them alone."""
    shown = rest_of(living({"speed": 7.0, "engine_load": 7.0})).dump(CAR)
    changed = shown[::-1].replace(here[::-1], there[::-1], 1)[::-1]
    assert changed != shown
    if b":01" in changed:
        with pytest.raises(Malformed):
            packed.load(changed)
        return
    rest, _ = packed.load(changed)
    assert orjson.loads(rest.dump(CAR)) == orjson.loads(changed)


@pytest.mark.parametrize("number", ["1e400", "-1e400", "9" * 400])
def test_a_value_that_is_not_finite_is_malformed(number):
    """A parser would not read the document again."""
    shown = rest_of(living({"speed": 7.0})).dump(CAR)
    with pytest.raises(Malformed):
        packed.load(shown.replace(b"7.0", number.encode()))


def test_the_signals_are_not_looked_for_in_the_configuration():
    """In a document whose signals are not the last part, as others may write it."""
    world = living()
    like_signals = {"reported": {"speed": {"v": 9, "t": 1, "n": 1, "s": 1, "o": 1}}}
    world.reported(1, 1, {"a": 1, **like_signals})
    plain = orjson.loads(document.dump(world.twin))
    turned = {name: plain[name] for name in reversed(plain) if name != "config"}
    rest, _ = packed.load(orjson.dumps({**turned, "config": plain["config"]}))
    assert packed.unpack(rest, CAR) == world.twin


def test_repeated_names_in_a_document_break_nothing():
    """A parser takes the last of them; what is kept is what was parsed."""
    shown = rest_of(living()).dump(CAR)
    twice = shown.replace(b'"presence":{', b'"presence":{"x":1},"presence":{')
    rest, fields = packed.load(twice)
    assert orjson.loads(rest.dump(CAR)) == {**orjson.loads(twice), **fields}


WHOLE = document.dump(living().twin)
BROKEN = [
    b"",
    b"null",
    b"[]",
    b"{}",
    b'{"reported":1}',
    b'{"reported":{"speed":{"v":1}}}',
    b'{"reported":{},"presence":{}}',
    WHOLE.replace(b'"v":1.0', b'"v":"1,0"'),
    WHOLE.replace(b'"v":1.0', b'"v":[1,0]'),
    WHOLE.replace(b'"v":1.0', b'"v":null'),
    WHOLE.replace(b'"v":1.0', b'"v":true'),
    WHOLE.replace(b'"n":1,', b'"n":9223372036854775808,'),
    WHOLE.replace(b'"seen":1', b'"seen":99999991'),
]


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_no_document_is_malformed(data):
    """A changelog that somebody else wrote to is named, not half-read."""
    with pytest.raises(Malformed):
        packed.load(data)


@pytest.mark.parametrize(
    "change",
    [
        {"revision": 2**63},
        {"revision": "1"},
        {"applied": {"telemetry": 3}},
        {"applied": {"telemetry": [1, 2, 3]}},
        {"applied": 3},
        {"presence": {"state": "online", "session": 1, "seen": "now"}},
        {"presence": {"state": "online", "session": 1, "seen": None}},
        {"attributes": []},
        {"attributes": {"fleet": []}},
        {"commands": {}},
        {"health": {}},
    ],
)
def test_parts_of_another_shape_are_malformed(change):
    """Numbers that do not fit, and parts that are not what they should be."""
    plain = orjson.loads(document.dump(living().twin))
    with pytest.raises(Malformed):
        packed.load(orjson.dumps({**plain, **change}))


def test_a_twin_that_nobody_has_heard_of_rests():
    """Made by an operator before the car has said anything."""
    twin = state.create(CAR, T0)
    rest = packed.pack(twin)
    assert (packed.unpack(rest, CAR), rest.seen) == (twin, None)
    assert orjson.loads(rest.dump(CAR)) == orjson.loads(document.dump(twin))
    assert rest.observe(sample(telemetry(T0 + 1, suspect=["speed"])), 3, 1, T0) is None
