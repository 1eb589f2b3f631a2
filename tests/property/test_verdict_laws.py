"""Laws of the checker's accounts for any fleet, loss, redelivery and order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from verdict_accounts import account
from verdict_sides import CarSide, Evidence

START = 1_790_000_000_000
FATES = ("kept", "dropped", "doubled", "rejected", "unacknowledged and dropped")


@settings(deadline=None)
@given(st.lists(st.sampled_from(FATES), min_size=1, max_size=30), st.randoms())
def test_lost_and_duplicates_are_exactly_what_was_done_to_the_messages(fates, random):
    """However messages are dropped, doubled, rejected and reordered, the counts are exact."""
    cars = CarSide()
    cars.add({"e": "connect", "v": "a", "session": START, "t": START})
    evidence = Evidence(cars.vehicles)
    stored = []
    for n, fate in enumerate(fates, 1):
        numbers = {"v": "a", "session": START, "sequence": n}
        cars.add({"e": "sent", **numbers, "t": START + n})
        if not fate.startswith("unacknowledged"):
            cars.add({"e": "acked", **numbers})
        stored += [n] * {"kept": 1, "doubled": 2}.get(fate, 0)
        if fate == "rejected":
            evidence.add_rejected("a", START, ("a", START, n))
    random.shuffle(stored)
    for offset, n in enumerate(stored):
        fields = {"vehicle_id": "a", "event_time": START + n, "session": START, "sequence": n}
        evidence.add_telemetry({**fields, "speed": float(n)}, (0, offset))
    verdict = account(cars, evidence)
    figures = verdict.figures
    assert figures["lost"] == fates.count("dropped")
    assert figures["gaps"] == sum(fate.endswith("dropped") for fate in fates)
    assert not any("numbers are missing" in problem for problem in verdict.problems)
    assert figures["duplicates"] == fates.count("doubled")
    assert figures["rejected"] == fates.count("rejected")
    assert figures["kafka"] == fates.count("kept") + fates.count("doubled")
    assert figures["sent"] == len(fates)
    if stored:
        assert evidence.folds["a"]["speed"][-1] == max(stored)
