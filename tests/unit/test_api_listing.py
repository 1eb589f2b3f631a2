"""Pages of twins: complete, in order, stable under change, and bounded, over any index."""

import asyncio
from itertools import chain
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.api_fakes import FakeReader, twin
from twin.api import filters, listing, order
from twin.api.order import Place
from twin.api.problems import Problem
from twin.wire.keys import NUMBERS, index_of

SORTS = [f"{sign}{field}" for sign in ("", "-") for field in ("vehicle_id", *filters.FIELDS)]


def car(vehicle_id: str, fleet: str, health: str, coolant: float | None, opened: int) -> Any:
    """A twin of which some things are in the index."""
    value = {"t": 1, "n": 1, "s": 1, "o": 1}
    return twin(
        vehicle_id,
        attributes={"fleet": fleet},
        health={"state": health, "since": 1, "models": {}},
        reported={} if coolant is None else {"coolant_temp": {"v": coolant, **value}},
        commands={"open": [str(n) for n in range(opened)]},
    )


CARS = st.lists(
    st.tuples(
        st.text("abAB._-1", min_size=1, max_size=3),
        st.sampled_from(["berlin", "Ä", ""]),
        st.sampled_from(["alarm", "normal"]),
        st.none() | st.sampled_from([0.0, 1.5, 90.0]),
        st.integers(0, 2),
    ),
    max_size=25,
    unique_by=lambda one: one[0],
).map(lambda rows: [car(*row) for row in rows])
FILTERS = st.sampled_from(
    [
        "",
        "health eq alarm",
        "health eq alarm and fleet eq berlin",
        "coolant_temp ge 1",
        "coolant_temp lt 90 and coolant_temp gt 0",
        "coolant_temp ne 90",
        "open_commands gt 0",
        "open_commands le 1",
        "fleet ne berlin",
        "fleet eq nowhere",
    ]
)


def pages(reader: Any, text: str, sort: str, limit: int, change: Any = None) -> list[list[str]]:
    """All pages of a list, as a client follows them; `change` is called between them."""
    conditions = filters.parse(text) if text else ()
    by = order.parse(sort)

    async def run() -> list[list[str]]:
        found = []
        cursor: str | None = None
        while True:
            after = by.decode(cursor) if cursor else None
            page = await listing.select(reader, conditions, by, after, limit)
            found.append([orjson.loads(body)["vehicle_id"] for body in page.documents])
            if page.next is None:
                return found
            cursor = by.encode(page.next)
            if change is not None:
                change()

    return asyncio.run(run())


def expected(cars: list[Any], text: str, sort: str) -> list[str]:
    """The list, said plainly."""
    conditions = filters.parse(text) if text else ()
    index = {one["vehicle_id"]: index_of(one) for one in cars}
    ids = [v for v, values in index.items() if all(c.holds(values) for c in conditions)]
    field, backwards = sort.removeprefix("-"), sort.startswith("-")
    if field == "vehicle_id":
        return sorted(ids, reverse=backwards)
    having = sorted((index[v][field], v) for v in ids if field in index[v])
    lacking = sorted(v for v in ids if field not in index[v])
    if backwards:
        return [v for _, v in reversed(having)] + lacking[::-1]
    return [v for _, v in having] + lacking


@pytest.fixture(params=[0, 3, 2000], ids=["no small sets", "some", "all"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the list goes over from sets to the order itself."""
    monkeypatch.setattr(listing, "_SMALL", request.param)
    monkeypatch.setattr(listing, "_CHUNK", 4)


@pytest.mark.usefixtures("small")
@given(CARS, FILTERS, st.sampled_from(SORTS), st.integers(1, 9))
def test_pages_are_the_sorted_matches(cars: Any, text: str, sort: str, limit: int) -> None:
    """Every twin that fulfils the filter once, in the order, whichever way they are found."""
    found = pages(FakeReader(*cars), text, sort, limit)
    assert [*chain(*found)] == expected(cars, text, sort)
    assert all(len(page) == limit for page in found[:-1])


@pytest.mark.usefixtures("small")
@given(CARS, FILTERS, st.sampled_from(SORTS), st.data())
def test_what_does_not_change_is_on_one_page(cars: Any, text: str, sort: str, data: Any) -> None:
    """While other twins come, change and go between the pages."""
    reader = FakeReader(*cars)
    fixed = {one["vehicle_id"] for n, one in enumerate(cars) if n % 2}

    def change() -> None:
        for one in data.draw(CARS):
            if one["vehicle_id"] not in fixed:
                reader.twins[one["vehicle_id"]] = one
        for name in data.draw(st.lists(st.sampled_from([*reader.twins, ""]), max_size=3)):
            if name not in fixed:
                reader.twins.pop(name, None)

    found = [*chain(*pages(reader, text, sort, 3, change))]
    wanted = expected([one for one in cars if one["vehicle_id"] in fixed], text, sort)
    assert [name for name in found if name in fixed] == wanted


def test_page_that_costs_too_much_ends_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few matches among many twins: pages may be short or empty, and none is lost."""
    monkeypatch.setattr(listing, "_SMALL", 0)
    monkeypatch.setattr(listing, "_CHUNK", 10)
    monkeypatch.setattr(listing, "_MOST_IDS", 50)
    cars = [car(f"c{n:03}", "x", "alarm" if n in (7, 260) else "normal", n, 0) for n in range(300)]
    for text, sort in [("health eq alarm", "vehicle_id"), ("health eq alarm", "-coolant_temp")]:
        found = pages(FakeReader(*cars), text, sort, 5)
        assert [*chain(*found)] == expected(cars, text, sort)
        assert 4 <= len(found) <= 8
        assert [] in found
    monkeypatch.setattr(listing, "_MOST_DOCUMENTS", 60)
    found = pages(FakeReader(*cars), "health ne normal", "vehicle_id", 5)
    assert [*chain(*found)] == ["c007", "c260"]
    assert 4 <= len(found) <= 8


@pytest.mark.parametrize(
    ("text", "looked_at"),
    [("fleet eq x and health ne alarm", 26), ("fleet eq x and health eq alarm", 3)],
)
def test_page_costs_the_smaller_way(text: str, looked_at: int) -> None:
    """Frequent matches are met on the way; rare ones are in a set that is read."""
    cars = [car(f"c{n:03}", "x", "alarm" if n % 70 == 0 else "normal", n, 0) for n in range(200)]
    asked = []

    class Watched(FakeReader):
        async def among(self, selectors: Any, ids: Any) -> list[str]:
            asked.append(len(ids))
            return await super().among(selectors, ids)

    (first, *_) = pages(Watched(*cars), text, "vehicle_id", 25)
    assert first == expected(cars, text, "vehicle_id")[:25]
    assert asked[0] == looked_at


@pytest.mark.parametrize("sort", SORTS)
def test_order_is_read_and_its_cursor_comes_back(sort: str) -> None:
    """Every indexed field both ways; a place survives the way through a client."""
    by = order.parse(sort)
    value: Any = "Ä/1" if by.textual else -1.25 if by.field in NUMBERS else None
    place = Place(value, "car-1")
    assert by.decode(by.encode(place)) == place
    assert by.descending is sort.startswith("-")


@pytest.mark.parametrize(
    "sort", ["", "-", "colour", "--speed", "tire_pressure_1_1", "speed,health"]
)
def test_other_orders_are_refused(sort: str) -> None:
    """The sentence names what is sortable."""
    with pytest.raises(Problem, match=r"vehicle_id, presence, .* open_commands") as refused:
        order.parse(sort)
    assert refused.value.code == "invalid_sort"


@given(st.sampled_from(SORTS), st.text(max_size=60) | st.binary(max_size=60).map(repr))
def test_any_cursor_is_read_or_refused(sort: str, text: str) -> None:
    """What we did not make is refused, whatever it is."""
    with pytest.raises(Problem) as refused:
        order.parse(sort).decode(text)
    assert refused.value.code == "invalid_cursor"


@pytest.mark.parametrize(
    "inside",
    ["[]", '["speed",1.5]', '["speed","1","a"]', '["speed",true,"a"]', '["speed",1.5,"a b"]', "5",
     '["health",1.5,"a"]', '["health",null,"a"]', '["vehicle_id","x","a"]', "{}", '["speed",[],"a"]'],
)  # fmt: skip
def test_cursor_with_other_things_in_it_is_refused(inside: str) -> None:
    """Well encoded, but no place in this order."""
    for sort in ("speed", "health", "vehicle_id"):
        with pytest.raises(Problem, match="cursor="):
            order.parse(sort).decode(order.encode_text(inside))
