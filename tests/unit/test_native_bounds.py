"""What is C refuses what it cannot keep, in a sentence; each of these once read or wrote elsewhere."""

import copy

import orjson
import pytest

from tests.twin_builders import CAR, T0, World, telemetry
from twin import packed
from twin.native.index import Index, before
from twin.native.rest import Group, Packed, Row, without
from twin.native.telemetry import Reader, Sample
from twin.wire import topics
from twin.wire.errors import Malformed

NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 1)


def rest(*groups, numbers=NUMBERS):
    return Packed(numbers, b"", b'"state":"online"},"reported":{', list(groups), None)


def test_a_record_may_name_a_suspect_signal_twice():
    """Whoever writes to the topic may; the twin shows it once, and the worker goes on."""
    world = World()
    world.online(1)
    record = telemetry(T0 + 1, 1, suspect=["speed", "speed"], speed=999.0, engine_load=0.5)
    world.put(topics.TELEMETRY, record)
    twin = packed.pack(world.twin)
    assert orjson.loads(twin.dump(CAR))["reported"]["speed"]["q"] == "suspect"
    assert packed.unpack(packed.load(twin.row(CAR).document)[0], CAR) == world.twin


def test_names_that_come_twice_are_written_where_they_belong():
    """More suspect ones than were named: the document has room for all."""
    many = Group(("a",) * 1000, (1.0,) * 1000, 1, 2, 3, 4, ("a",))
    assert rest(many).dump(CAR).count(b'"q":"suspect"') == 1000


def test_a_name_that_comes_twice_in_a_document_is_what_a_parser_takes():
    """The last of them, also for the order of lists."""
    entry = b'"a":{"v":%d,"t":1,"n":1,"s":1,"o":1}'
    assert not rest().read_signals(b"{" + entry % 1 + b"," + entry % 2 + b"}}", 1)


@pytest.mark.parametrize(("last", "fits"), [(30, True), (31, True), (32, False), (33, False)])
def test_more_values_than_there_is_room_for_are_left_to_the_parser(last, fits):
    """All but one take 32 bytes each with their commas, of 4096."""
    digits = [31] * 127 + [last]
    origin = b',"t":1,"n":2,"s":3,"o":4}'
    members = [b'"s%d":{"v":%b%b' % (i, b"1" * count, origin) for i, count in enumerate(digits)]
    text = b",".join(members) + b"}}"
    one = rest()
    assert one.read_signals(text, 0) is fits
    assert one.dump(CAR) == one.beginning(CAR) + one.text + (text if fits else b"}}")


@pytest.mark.parametrize("number", [1.0, 1.5, True, "1", None, 2**63])
def test_numbers_of_a_twin_are_integers(number):
    """C would cut a float without a word."""
    with pytest.raises((TypeError, OverflowError)):
        rest(numbers=(*NUMBERS[:9], number))
    with pytest.raises((TypeError, OverflowError)):
        Group(("a",), (1.0,), number, 1, 1, 1)


def test_a_document_of_a_revision_and_a_half_is_malformed():
    """It is named, not mended."""
    world = World()
    world.online(1)
    shown = packed.pack(world.twin).dump(CAR)
    with pytest.raises(Malformed):
        packed.load(shown.replace(b'"revision":1,', b'"revision":1.5,'))


@pytest.mark.parametrize("place", [2, 8, 9])
def test_a_count_has_room_to_grow(place):
    """Revision, late, duplicates: what is near the end was made up, and would begin again below 0."""
    near = [*NUMBERS]
    near[place] = 2**62
    rest(numbers=tuple(near))
    near[place] += 1
    with pytest.raises(OverflowError):
        rest(numbers=tuple(near))


@pytest.mark.parametrize(
    "call",
    [
        lambda: rest("a", Group(("a",), (1.0,), 1, 1, 1, 1)),
        lambda: rest(None),
        lambda: without(["a"], ("a",)),
        lambda: Packed.__new__(Packed),
        lambda: Packed(NUMBERS, None, b"", [], None),
        lambda: setattr(rest(), "text", None),
        lambda: rest().observe(None, 1, 2, 3),
        lambda: rest().dump(None),
        lambda: Group(None, None, 1, 1, 1, 1),
        lambda: Sample("a", 1, 1, 1, None, None),
        lambda: Reader.__new__(Reader),
        lambda: Index(("a",), (1.0, 1.0)).numbers(None),
        lambda: Index(("a",), (1.0, 1.0)).moved(Row(), None),
        lambda: before(b"a", Row(), b""),
    ],
)
def test_parts_of_other_types_are_refused(call):
    """Also where an object of C is expected, and where there is none."""
    with pytest.raises(TypeError):
        call()


def test_a_sample_has_a_value_for_each_name():
    """Columns of different length would be told apart much later."""
    with pytest.raises(ValueError, match="2 names and 1 values"):
        Sample("a", 1, 1, 1, ("a", "b"), (1.0,))


def test_a_record_begins_within_its_bytes():
    """And not in front of them."""
    with pytest.raises(ValueError, match="byte -1"):
        Reader([]).read(b"\2x\0\0\0\0\0", -1)


def test_a_group_is_copied_with_the_twin_that_it_is_of():
    """As callers that must go back do."""
    one = Group(("a",), (1.0,), 1, 2, 3, 4, ("a",))
    for other in (copy.deepcopy(one), one.copy()):
        assert other is not one
        assert repr(other) == repr(one)
