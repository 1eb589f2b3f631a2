"""What is C holds for any input: numbers at their ends, bytes of all kinds, names that need escapes.

Plain Python is the oracle of each. tests/deep/test_native_sanitizer.py runs this file with sanitizers,
which see what no answer shows.
"""

from contextlib import suppress

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.twin_builders import CAR, MemoryLedger
from twin import document, packed
from twin.apply import NEW_VALUES, Context, apply
from twin.native.index import Index, before
from twin.native.rest import Group, Packed
from twin.native.telemetry import Reader, Sample, id_of_key, shared_names
from twin.state import create
from twin.wire import columnar, topics

INT64 = st.sampled_from([-(2**63), -1, 0, 10**18 - 1, 10**18, 2**63 - 1]) | st.integers(
    -(2**63), 2**63 - 1
)
NATURAL = st.sampled_from([0, 1, 10**18 - 1, 10**18, 2**63 - 1]) | st.integers(0, 3)
COUNT = st.integers(0, 2**62)
NAMES = ("speed", "fuel_level", "a", "", 'q"', "\\", "\x01", "\x7f", "ü€😀")
VALUES = (
    st.sampled_from([-0.0, 1e16, 5e-324, -1.7976931348623157e308, 1e22])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(2**31), 2**31 - 1)
)
TEXTS = st.sampled_from(
    [b'"state":"online"},"a":{"reported":{}},"reported":{', b'"state":"\xc3\xbc"},"reported":{']
)


@st.composite
def groups(draw, values=VALUES):
    """Each name in one of them; some suspect, perhaps named so twice."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    made = []
    while names:
        count = draw(st.integers(1, len(names)))
        some, names = shared_names(tuple(names[:count])), names[count:]
        suspect = draw(st.just([]) | st.lists(st.sampled_from(some), max_size=4))
        said = draw(st.tuples(*[values] * count))
        made.append(Group(some, said, *(draw(INT64) for _ in "tnso"), tuple(suspect)))
    return made


@st.composite
def rests(draw):
    """Twins at rest, whatever they are of."""
    numbers = (
        *draw(st.tuples(INT64, INT64, COUNT, INT64, INT64, INT64, INT64, INT64)),
        *draw(st.tuples(COUNT, COUNT) | st.just((-1, -1))),
    )
    applied = draw(st.sampled_from([b"", b',"presence":[1,2]']))
    return Packed(numbers, applied, draw(TEXTS), draw(groups(VALUES | st.none())), None)


def members_of(some):
    """`reported` of groups."""
    return {
        name: {"v": value, "t": group.t, "n": group.n, "s": group.s, "o": group.o}
        | ({"q": "suspect"} if name in group.suspect else {})
        for group in some
        for name, value in zip(group.names, group.values, strict=True)
    }


@given(rests(), st.text(st.characters(categories=["L", "N"]), max_size=70))
def test_a_twin_is_written_as_its_parts_say(rest, vehicle_id):
    """Its document, what is in front of `text`, and what the view stores, byte by byte."""
    epoch, created, revision, updated, seen, _, partition, offset, late, duplicates = rest.numbers
    plain = {"epoch": epoch, "vehicle_id": vehicle_id, "revision": revision, "updated_at": updated}
    if late >= 0:
        plain["counts"] = {"late": late, "duplicates": duplicates}
    plain["applied"] = {"telemetry": [partition, offset]} if offset >= 0 else {}
    plain["applied"] |= orjson.loads(b"{%b}" % rest.applied[1:])
    fixed = orjson.loads(b'{"presence":{%b}}' % rest.text)
    plain["presence"] = ({"seen": seen} if seen >= 0 else {}) | fixed.pop("presence")
    plain |= fixed | {"reported": members_of(rest.groups())}
    shown = orjson.dumps(plain)
    assert rest.dump(vehicle_id) == shown
    assert shown.startswith(rest.beginning(vehicle_id) + rest.text)
    row = rest.row(vehicle_id)
    assert (row.document, row.version) == (shown, (epoch, created, revision))
    assert columnar.document_of(row.text) == shown
    assert row.seen == rest.seen == (seen if seen >= 0 else None)


PIECES = (
    st.sampled_from([bytes((one,)) for one in b'{}[]",:\\-+.eE019 \0\x01\xff'])
    | st.sampled_from([b"}}", b'"v":', b'":{"v":', b',"o":', b'"v":-0,', b"e999", b"0" * 5000])
    | st.binary(max_size=3)
)


@st.composite
def changed(draw, data):
    """The same with some pieces put in, left out, doubled or replaced."""
    for _ in range(draw(st.sampled_from([0, 1, 1, 2]))):
        at = draw(st.integers(0, len(data)))
        until = at + draw(st.sampled_from([0, 1, 2, 9]) | st.integers(0, len(data)))
        piece = draw(PIECES | st.sampled_from([b"", data[at:until] * 2]))
        data = data[:at] + piece + data[until:]
    return data


@st.composite
def signals(draw):
    """Members of `reported`, most of the time of one record, sometimes of several."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    said = draw(st.tuples(*[VALUES] * len(names)))
    made = [Group(tuple(names), said, draw(NATURAL), draw(NATURAL), 2, draw(st.integers(-1, 3)))]
    return orjson.dumps(members_of(draw(st.just(made) | groups())))


@given(st.lists(signals().flatmap(changed), min_size=2, max_size=3), st.none() | INT64)
def test_signals_are_read_as_a_parser_reads_them_or_not_at_all(texts, elsewhere):
    """Documents that were changed anyhow, from any byte on; each may mislead about the next."""
    for text in texts:
        data = b'{"r":' + text + b"}"
        at = 6 if elsewhere is None else elsewhere
        rest = Packed((0,) * 10, b"", b"", [], None)
        if not rest.read_signals(data, at):
            assert rest.groups() == []
            continue
        # As text: names are in their order, 1 is not 1.0, and a name does not come twice.
        assert repr(members_of(rest.groups())) == repr(orjson.loads(b"{" + data[at:-1]))
        assert rest.dump(CAR) == rest.beginning(CAR) + data[at:]


@given(groups(), st.data())
def test_a_changed_document_is_loaded_as_a_parser_loads_it_or_not_the_quick_way(some, data):
    """The quick way looks at little more than lengths; all the rest is found out by comparing."""
    twin = create(CAR, 5)
    twin["reported"] = packed.Reported(some)
    text = data.draw(changed(packed.pack(twin).dump(CAR)))
    quick = None
    with suppress(ValueError, LookupError, TypeError, AttributeError, OverflowError):
        quick = packed._load(text)
    if quick is not None:
        plain = document.load(text)
        assert packed.unpack(quick[0], plain["vehicle_id"]) == plain
        assert quick[0].dump(plain["vehicle_id"]) == text


FEW = st.sampled_from([0, 1, 1, 1, 2**63 - 1])
SAMPLES = st.sampled_from(
    [(), ("speed", "a"), ("speed", "a"), ("a",), ("fuel_level", "speed")]
).flatmap(
    lambda names: st.builds(
        Sample,
        st.just(CAR),
        NATURAL,
        FEW,
        FEW,
        st.sampled_from([shared_names(names), (*names,)]),
        st.tuples(*[st.sampled_from([0, 0.0, 0.0, -0.0, 1e16])] * len(names)),
        suspect=st.sampled_from([(), (), (), ("speed",), ("speed", "x", "speed")]),
    )
)


@given(
    st.just([]) | groups(),
    st.lists(
        st.tuples(
            SAMPLES,
            st.sampled_from([0, 0, 0, 1]),
            st.sampled_from([0, 1, 1, 1, 2**62]),
            st.integers(0, 2**48),
        ),
        min_size=1,
        max_size=12,
    ),
    st.sampled_from(["online", "offline", "stale", "unknown"]),
    st.none() | NATURAL,
)
def test_a_twin_at_rest_takes_what_apply_takes(some, log, state, seen):
    """Records of any numbers, told by anybody: the same twin, and the same verdict on the record."""
    twin = create(CAR, 5)
    twin["reported"] = packed.Reported(some)
    twin["presence"] |= {"state": state, "session": 1} | ({} if seen is None else {"seen": seen})
    rest = packed.pack(twin)
    offset = 0
    for sample, partition, further, at in log:
        offset = min(offset + further, 2**63 - 1)
        twin = packed.unpack(rest, CAR)
        shown = rest.dump(CAR)
        told = rest.observe(sample, partition, offset, at)
        if told is None:
            assert rest.dump(CAR) == shown
        place = {"topic": topics.TELEMETRY, "partition": partition, "offset": offset}
        after, effects = apply(twin, MemoryLedger(), sample, place, at, Context())
        if told is None:
            rest = packed.pack(after)
        assert packed.unpack(rest, CAR) == after
        if told is not None:
            assert told == (
                packed.NEW if effects is NEW_VALUES
                else packed.REPEATED if effects.repeated
                else packed.DUPLICATE if effects.duplicate
                else packed.LATE
            )  # fmt: skip
            assert effects.late == (
                0 if told in {packed.NEW, packed.REPEATED} else len(sample.names)
            )
        columnar.document_of(rest.row(CAR).text)


LAGS = (0.5, 2.0, 60_000.0)
INDEX = Index(("speed", "a"), LAGS)


@given(st.lists(rests(), min_size=1, max_size=4), st.binary(max_size=70), st.binary(max_size=20))
def test_the_index_of_a_row_is_what_its_document_says(some, key, ending):
    """Numbers, what has moved since, which version is newer, and the bytes that Redis gets."""
    last = version = None
    scores = {}
    for rest in some:
        row = rest.row(CAR)
        members = members_of(rest.groups())
        numbers = [*(members.get(name, {"v": None})["v"] for name in ("speed", "a")), rest.seen]
        assert INDEX.numbers(row) == numbers
        there = {place: number for place, number in enumerate(numbers) if number is not None}
        if last is None:
            last, scores = INDEX.last(row, ending), dict(there)
        else:
            assert last.newer_than(row) == (version > row.version)
            moved = {
                place: number
                for place, number in there.items()
                if place not in scores or not abs(number - scores[place]) <= LAGS[place]
            }
            assert INDEX.moved(row, last) == list(moved.items())
            scores |= moved
        version = row.version
        head = b"[%d,%d,%d," % version + ending
        size = len(head) + len(row.text)
        assert before(key, row, ending) == b"\r\n$%d\r\n%b\r\n$%d\r\n%b" % (
            len(key),
            key,
            size,
            head,
        )


READER = Reader([("speed", True), ("a", False), ("b", True)])


@given(
    st.binary(max_size=60)
    | changed(b"\x0acar-1\x02\x04\x06\x00\x00\x02\x00\x00\x80?\x02\x01\x00")
    | changed(b"\x0acar-1" + b"\xff" * 9 + b"\x01\x04\x06\x01\x04\x02a\x02b\x00\x00\x02\x02\x00"),
    st.just(0) | st.integers(-3, 70) | INT64,
    st.none() | st.sampled_from(["car-1", "", "ü"]),
)
def test_bytes_are_a_record_or_a_value_error(data, at, vehicle_id):
    """From any byte on; what is read is a record that can be handled."""
    try:
        sample = READER.read(data, at, vehicle_id)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - a record is fine, too
    else:
        assert at >= 0
        assert len(sample.names) == len(sample.values) <= 3
        rest = packed.pack(create(CAR, 5))
        rest.observe(sample, 0, 1, 2)
        assert orjson.loads(rest.dump(CAR))["vehicle_id"] == CAR
    assert id_of_key(data) is None or id_of_key(data).encode() == data


@pytest.mark.parametrize("data", [b"", b"}", b"}}", b"}}}"])
def test_the_shortest_documents_have_no_signals(data):
    """Whichever byte they are said to begin at."""
    for at in range(-2, 5):
        read = Packed((0,) * 10, b"", b"", [], None).read_signals(data, at)
        assert read == (at >= 0 and data[at:] == b"}}")
