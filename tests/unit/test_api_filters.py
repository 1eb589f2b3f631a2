"""The filter grammar of lists."""

import contextlib
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twin.api import filters
from twin.api.problems import Problem
from twin.api.selectors import Between, Having, Selector
from twin.wire.keys import COUNTED, LAG, NUMBERS

CAR = {
    "presence": "online",
    "health": "alarm",
    "fleet": "berlin mitte",
    "model": "m1",
    "firmware": "900",
    "coolant_temp": 118.5,
}


def holds(text: str) -> bool:
    return all(condition.holds(CAR) for condition in filters.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "health eq alarm",
        "health ne normal and presence eq online",
        'fleet eq "berlin mitte"',
        r'fleet eq "berlin mitt\u0065"',
        "coolant_temp gt 118 and coolant_temp lt 119",
        "coolant_temp ge 118.5 and coolant_temp le 1.185e2",
        "firmware lt 2000",
        "model ge m0",
        "  health   eq alarm ",
    ],
)
def test_true_condition_holds(text: str) -> None:
    """A car that fulfils every condition is in the list."""
    assert holds(text)


@pytest.mark.parametrize(
    "text",
    [
        "health eq normal",
        "health eq alarm and presence ne online",
        "coolant_temp gt 118.5",
        "firmware ge 2000",
        "speed gt 0",
        "speed eq 0",
        'fleet eq "and"',
    ],
)
def test_false_condition_does_not_hold(text: str) -> None:
    """One condition that is not fulfilled keeps a car out; an absent signal fulfils none."""
    assert not holds(text)


def test_absent_signal_is_unequal_to_every_value() -> None:
    """`ne` finds cars that do not have the signal at all."""
    assert holds("speed ne 0")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("vin eq x", "coolant_temp"),
        ("tire_pressure_1_1 gt 3", "presence, health, fleet, model, firmware"),
        ("health gt alarm", "eq, ne"),
        ("health eq broken", "insufficient_data"),
        ("presence eq", "<field> <op> <value>"),
        ("", "empty"),
        ("health eq alarm or presence eq online", "' and '"),
        ("health eq alarm and", "' and '"),
        ("coolant_temp like 5", "eq, ne, gt"),
        ("coolant_temp gt hot", "a number"),
        ("coolant_temp gt nan", "a number"),
        ("coolant_temp gt 1_0", "a number"),
        ('coolant_temp gt "5"', "a number"),
        ('fleet eq "open', "character 10"),
        ('fleet eq "a"b', "character 10"),
        (r'fleet eq "\q"', "JSON escapes"),
        ("x" * 1001, "at most 1000"),
    ],
)
def test_refused_filter_names_what_is_accepted(text: str, named: str) -> None:
    """A filter that cannot be used is refused with a sentence that names what can."""
    with pytest.raises(Problem) as refused:
        filters.parse(text)
    assert refused.value.code == "invalid_filter"
    assert refused.value.status == 400
    assert named in refused.value.detail


def test_filterable_fields_are_those_of_the_index() -> None:
    """What can be filtered by is what the view keeps in its index, and nothing else."""
    assert set(filters.FIELDS) == {*COUNTED, *NUMBERS}


@given(st.text(max_size=80))
def test_any_text_is_read_or_refused(text: str) -> None:
    """No text makes the parser fail in another way than by a refusal."""
    with contextlib.suppress(Problem):
        assert all(condition.field in filters.FIELDS for condition in filters.parse(text))


@given(st.text(min_size=1, max_size=40).filter(lambda text: text.isprintable()))
def test_quoted_text_finds_exactly_that_text(text: str) -> None:
    """Whatever a fleet is called, its name in JSON quotes finds it."""
    (condition,) = filters.parse(f"fleet eq {orjson.dumps(text).decode()}")
    assert condition.holds({"fleet": text})
    assert not condition.holds({"fleet": text + "x"})


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_number_operators_agree_with_arithmetic(actual: float, wanted: float) -> None:
    """Each operator means what it means for numbers."""
    for op, expected in {
        "eq": actual == wanted,
        "ne": actual != wanted,
        "gt": actual > wanted,
        "ge": actual >= wanted,
        "lt": actual < wanted,
        "le": actual <= wanted,
    }.items():
        (condition,) = filters.parse(f"speed {op} {wanted!r}")
        assert condition.holds({"speed": actual}) is expected


@given(
    st.sampled_from(["speed", "coolant_temp", "last_seen", "open_commands"]),
    st.sampled_from(["eq", "ne", "gt", "ge", "lt", "le"]),
    st.integers(-3, 6),
    st.floats(-8, 8),
    st.floats(-1, 1),
)
def test_selector_leaves_out_no_twin_that_fulfils(
    field: str, op: str, wanted: int, actual: float, behind: float
) -> None:
    """However far the index lags behind a number (as far as it may), its range has the twin."""
    number = abs(round(actual)) if field == "open_commands" else actual * LAG[field]
    (condition,) = filters.parse(f"{field} {op} {wanted * (LAG[field] or 1)!r}")
    selector = condition.selector()
    score = None if field == "open_commands" and number == 0 else number + behind * LAG[field]
    if selector is not None and condition.holds({field: number}):
        assert selector.fits(score)


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("health eq alarm", Having("health", "alarm")),
        ("health ne alarm", None),
        ("fleet gt b", None),
        ("speed ne 1", None),
        ("open_commands ge 1", Between("open_commands", 1, math.inf)),
        ("open_commands lt 2", None),
        ("open_commands eq 0", None),
    ],
)
def test_index_is_asked_for_what_it_has_all_of(text: str, selector: Selector | None) -> None:
    """Twins that a condition means and the index does not have make it unfit for the condition."""
    (condition,) = filters.parse(text)
    assert condition.selector() == selector
