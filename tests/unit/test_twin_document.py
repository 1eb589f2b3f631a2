"""The twin document as bytes: the public JSON, and the columns behind it again."""

import orjson
import pytest

from tests.twin_builders import CAR, T0, World, sample, telemetry
from twin import document, state
from twin.wire.errors import Malformed


def twin_of(*records):
    twin = state.create(CAR, T0)
    for offset, record in enumerate(records):
        state.fold(twin, sample(record), offset)
    return twin


RECORDS = [
    pytest.param([], id="no telemetry yet"),
    pytest.param([telemetry(5, 7, 9, speed=91.2, tire_pressure_1_1=32)], id="one origin"),
    pytest.param(
        [telemetry(5, 7, 9, speed=1e-7, engine_load=0.5), telemetry(6, fuel_level=1.0)],
        id="two origins",
    ),
    pytest.param(
        [
            telemetry(5, speed=1.0, fuel_level=1.0),
            telemetry(6, speed=2.0),
            telemetry(5, latitude=1),
        ],
        id="origins in turn",
    ),
    pytest.param(
        [telemetry(5, suspect=["speed", "warp"], speed=500.0, fuel_level=1.0)], id="suspect"
    ),
    pytest.param([telemetry(0, suspect=["speed"], speed=-500.0)], id="only suspect"),
]


@pytest.mark.parametrize("records", RECORDS)
def test_the_bytes_are_the_plain_json_of_the_document(records):
    """As if every signal were the object that readers see; ints stay ints."""
    twin = twin_of(*records)
    plain = {**twin, "reported": {name: dict(entry) for name, entry in twin["reported"].items()}}
    assert orjson.loads(document.dump(twin)) == plain
    assert repr(orjson.loads(document.dump(twin))["reported"]) == repr(plain["reported"])


@pytest.mark.parametrize("records", RECORDS)
def test_what_is_loaded_is_the_twin_in_the_same_columns(records):
    """So a recovered twin dumps the same bytes and takes the next record as the old one did."""
    twin = twin_of(*records)
    loaded = document.load(document.dump(twin))
    assert loaded == twin
    assert repr(loaded["reported"].groups) == repr(twin["reported"].groups)
    assert document.dump(loaded) == document.dump(twin)


def test_recovered_twins_share_the_names_of_their_signals():
    """A record of the usual signals finds the recovered group at once; memory holds names once."""
    twin = document.load(document.dump(twin_of(telemetry(5, speed=1.0, fuel_level=1.0))))
    record = sample(telemetry(6, speed=2.0, fuel_level=0.9))
    assert twin["reported"].groups[0].names is record.names


def test_the_rest_of_a_document_is_kept_whatever_its_names():
    """Configuration may be named like parts of the document."""
    world = World()
    world.telemetry(speed=1.0)
    world.reported(1, 1, {"reported": {"speed": {"v": 9, "t": 1}}, "a,b:": '},"reported":{'})
    assert orjson.loads(document.dump(world.twin))["config"] == world.twin["config"]
    assert document.load(document.dump(world.twin)) == world.twin


@pytest.mark.parametrize(
    "data", [b"", b"null", b"[]", b"{}", b'{"reported":1}', b'{"reported":{"speed":{"v":1}}}']
)
def test_what_is_no_document_is_malformed(data):
    """A changelog that somebody else wrote to is named, not half-read."""
    with pytest.raises(Malformed):
        document.load(data)


def test_only_documents_are_dumped():
    """A part that is no JSON is a defect, not an empty object."""
    with pytest.raises(TypeError):
        document.dump({**state.create(CAR, T0), "config": {"a": object()}})
