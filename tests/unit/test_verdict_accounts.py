"""The checker's accounts: every way in which the loop can be wrong is told, and only that."""

import copy

import pytest

from verdict_accounts import account
from verdict_sides import CarSide, Evidence

START = 1_790_000_000_000
HEALTHY, SICK = "car-000001", "car-000002"
MESSAGES = 3


def car_lines():
    """Two cars of three messages each; the second degrades from its second message on."""
    lines = []
    for vehicle in (HEALTHY, SICK):
        lines.append({"e": "connect", "v": vehicle, "session": START, "t": START})
        for n in range(1, MESSAGES + 1):
            numbers = {"v": vehicle, "session": START, "sequence": n}
            lines.append({"e": "sent", **numbers, "t": START + n * 1000})
            lines.append({"e": "acked", **numbers})
    lines.append({"e": "command", "v": SICK, "id": "c1", "state": "received", "t": START + 2500})
    lines.append({"e": "command", "v": SICK, "id": "c1", "state": "succeeded", "t": START + 2600})
    lines.append({"e": "truth", "v": HEALTHY, "mode": None, "onset": None, "failure": None})
    lines.append(
        {
            "e": "truth",
            "v": SICK,
            "mode": "cooling",
            "onset": START + 1500,
            "failure": START + 2900,
        }
    )
    return lines


def telemetry(vehicle, n, **fields):
    return {
        "vehicle_id": vehicle,
        "event_time": START + n * 1000,
        "session": START,
        "sequence": n,
        "assigned": False,
        "suspect": [],
        "coolant_temp": 90.0 + n,
        "speed": None,
        **fields,
    }


def records():
    """What Kafka has when all is well: (kind, arguments) in order."""
    partitions = {HEALTHY: 0, SICK: 1}
    told = [
        ("telemetry", telemetry(vehicle, n), (partition, 10 + n))
        for vehicle, partition in partitions.items()
        for n in range(1, MESSAGES + 1)
    ]
    for vehicle, partition in partitions.items():
        twin = {
            "vehicle_id": vehicle,
            "reported": {"coolant_temp": {"v": 93.0, "t": START + 3000}},
            "applied": {"telemetry": [partition, 13]},
        }
        told.append(("twin", vehicle, twin))
    score = {
        "id": f"{SICK}:1-12:v1",
        "vehicle_id": SICK,
        "session": START,
        "state": "alarm",
        "models": {"autoencoder": {"version": "v1"}, "lstm": {"version": "v1"}},
    }
    told.append(("score", score, (1, 7)))
    what = {"state": "alarm", "event_time": START + 2000}
    told.append(("change", {"vehicle_id": SICK, "kind": "health", "what": what}))
    cause = {"score": score["id"], "topic": "scores", "partition": 1, "offset": 7}
    command = {
        "id": "c1",
        "vehicle_id": SICK,
        "name": "limit_power",
        "state": "succeeded",
        "by": "rule:limit",
        "issued_at": START + 2400,
        "cause": cause,
    }
    told.append(("command", f"{SICK}/c1", command))
    return copy.deepcopy(told)


def cars_of(lines):
    cars = CarSide()
    for line in lines:
        cars.add(line)
    return cars


def judge(told, lines=None):
    cars = cars_of(lines or car_lines())
    evidence = Evidence(cars.vehicles)
    for kind, *arguments in told:
        getattr(evidence, f"add_{kind}")(*arguments)
    return account(cars, evidence).line()


def only(told, kind, vehicle=None):
    """The arguments of the one record of this kind (and vehicle)."""
    (found,) = [
        arguments for name, *arguments in told if name == kind and vehicle in (None, arguments[0])
    ]
    return found


def test_a_loop_that_did_all_it_should_is_ok():
    """Figures of a perfect run, in the order of the contract."""
    line = judge(records())
    assert line == {
        "ok": True,
        "connected": 2,
        "sent": 6,
        "acknowledged": 6,
        "kafka": 6,
        "applied": 6,
        "rejected": 0,
        "duplicates": 0,
        "twins": 2,
        "scores": 1,
        "alarms": 1,
        "alarms_on_healthy": 0,
        "commands": {"succeeded": 1},
        "lost": 0,
        "gaps": 0,
        "held": 0,
        "dropped": 0,
        "again": 0,
        "alarms_on_degraded": 1,
        "degraded": 1,
        "decided": 1,
        "versions": ["v1"],
        "problems": [],
    }
    assert list(line)[:14] == [
        "ok", "connected", "sent", "acknowledged", "kafka", "applied", "rejected", "duplicates",
        "twins", "scores", "alarms", "alarms_on_healthy", "commands", "lost",
    ]  # fmt: skip


@pytest.mark.parametrize("dropped", range(2 * MESSAGES))
def test_one_dropped_record_is_exactly_one_lost(dropped):
    """Whichever record of telemetry is missing, the checker reports one lost and names it."""
    told = records()
    fields = told.pop(dropped)[1]
    line = judge(told)
    assert (line["lost"], line["kafka"], line["ok"]) == (1, 5, False)
    name = f"{fields['vehicle_id']} session {START} sequence {fields['sequence']}"
    assert any(name in problem for problem in line["problems"])


def without_telemetry(*numbers):
    """Kafka without these messages of the healthy car."""
    return [
        r
        for r in records()
        if r[0] != "telemetry" or r[1]["vehicle_id"] != HEALTHY or r[1]["sequence"] not in numbers
    ]


def keeping(*events):
    """The log when the healthy car keeps 100 messages, and what its store told."""
    lines = car_lines()
    lines[0]["store"] = 100
    return [
        *lines,
        *({"e": e, "v": HEALTHY, "session": START, "number": n} for e, n in events),
    ]


@pytest.mark.parametrize(
    ("events", "lost", "held", "dropped"),
    [
        ([], 0, 2, 0),
        ([("covered", 1)], 0, 2, 0),
        ([("covered", 2)], 1, 1, 0),
        ([("covered", 3)], 2, 0, 0),
        ([("dropped", 2)], 1, 1, 0),
    ],
)
def test_what_a_car_holds_is_not_lost(events, lost, held, dropped):
    """Lost is what it let go of: covered by an ack that was wrong, or acknowledged and dropped."""
    line = judge(without_telemetry(2, 3), keeping(*events))
    assert (line["lost"], line["held"], line["dropped"]) == (lost, held, dropped)
    assert line["gaps"] == 2
    assert any("held by their cars" in problem for problem in line["problems"]) == bool(held)


@pytest.mark.parametrize(("event", "lost", "dropped"), [("dropped", 0, 1), ("covered", 1, 0)])
def test_a_message_without_a_puback_is_lost_only_by_a_wrong_ack(event, lost, dropped):
    """What a full store dropped nobody had promised; its number is a gap all the same."""
    lines = [
        line
        for line in keeping((event, 2))
        if not (line["e"] == "acked" and line["v"] == HEALTHY and line["sequence"] == 2)
    ]
    line = judge(without_telemetry(2), lines)
    found = line["lost"], line["dropped"], line["held"], line["gaps"]
    assert found == (lost, dropped, 0, 1)


def test_a_number_that_was_never_sent_is_told():
    """A gap in Kafka that the log of the car cannot explain."""
    lines = [
        line
        for line in car_lines()
        if not (line["e"] in ("sent", "acked") and line["v"] == HEALTHY and line["sequence"] == 2)
    ]
    line = judge(without_telemetry(2), lines)
    assert (line["lost"], line["gaps"]) == (0, 1)
    assert any("1 numbers are missing" in problem for problem in line["problems"])


def test_a_message_that_was_not_acknowledged_is_not_lost():
    """Only what the broker acknowledged was promised."""
    lines = [line for line in car_lines() if (line["e"], line.get("sequence")) != ("acked", 2)]
    told = [
        record for record in records() if record[0] != "telemetry" or record[1]["sequence"] != 2
    ]
    line = judge(told, lines)
    assert (line["sent"], line["acknowledged"], line["kafka"], line["lost"]) == (6, 4, 4, 0)
    assert line["ok"]


def test_one_doubled_record_is_exactly_one_duplicate():
    """A redelivery is counted and is no fault: it changed nothing."""
    told = records()
    told.insert(3, ("telemetry", telemetry(HEALTHY, 2), (0, 14)))
    only(told, "twin", HEALTHY)[1]["applied"]["telemetry"] = [0, 14]
    line = judge(told)
    assert (line["duplicates"], line["kafka"], line["lost"], line["ok"]) == (1, 6, 0, True)


def test_a_rejected_message_is_not_lost():
    """What went to `rejected` with its original bytes is accounted for."""
    told = records()
    told.pop(0)
    told.append(("rejected", HEALTHY, START + 1, (HEALTHY, START, 1)))
    line = judge(told)
    assert (line["lost"], line["rejected"], line["kafka"]) == (0, 1, 5)


def test_a_rejected_record_that_names_no_message_covers_none():
    """An unreadable reject is counted but does not hide a loss."""
    told = records()
    told.pop(0)
    told.append(("rejected", HEALTHY, START + 1, None))
    line = judge(told)
    assert (line["lost"], line["rejected"]) == (1, 1)


def test_messages_beyond_what_the_twin_applied_are_told():
    """applied counts offsets up to the twin's, on the same partition."""
    told = records()
    only(told, "twin", HEALTHY)[1]["applied"]["telemetry"] = [0, 12]
    line = judge(told)
    assert (line["applied"], line["kafka"], line["ok"]) == (5, 6, False)
    only(told, "twin", HEALTHY)[1]["applied"]["telemetry"] = [5, 99]
    assert judge(told)["applied"] == 3


def test_a_wrong_value_of_a_twin_is_named():
    """The twin must show what the log folds to, as float32."""
    told = records()
    only(told, "twin", SICK)[1]["reported"]["coolant_temp"]["v"] = 92.0
    (problem,) = judge(told)["problems"]
    assert f"{SICK} coolant_temp is 92.0, in the log 93.0" in problem


def test_a_value_that_differs_only_beyond_float32_is_the_same():
    """Telemetry is float32 on the wire; JSON may show more digits."""
    told = records()
    only(told, "twin", SICK)[1]["reported"]["coolant_temp"]["v"] = 93.0 + 1e-9
    assert judge(told)["ok"]


@pytest.mark.parametrize("change", ["missing", "invented"])
def test_a_signal_only_one_side_has_is_named(change):
    """A signal that is missing from the twin, or that no record carries, is wrong."""
    told = records()
    reported = only(told, "twin", SICK)[1]["reported"]
    if change == "missing":
        reported.clear()
    else:
        reported["speed"] = {"v": 0.0}
    (problem,) = judge(told)["problems"]
    assert f"{SICK} {'coolant_temp' if change == 'missing' else 'speed'} is" in problem


def test_the_fold_goes_by_event_time_and_not_by_arrival():
    """A late record does not replace a newer value; a tie goes to the greater value bytes."""
    told = records()
    late = telemetry(HEALTHY, 1, coolant_temp=20.0, speed=5.0)
    told.insert(3, ("telemetry", late, (0, 14)))
    tie = telemetry(HEALTHY, 3, coolant_temp=99.0)
    told.insert(4, ("telemetry", tie, (0, 15)))
    twin = only(told, "twin", HEALTHY)[1]
    twin["applied"]["telemetry"] = [0, 15]
    twin["reported"] = {"coolant_temp": {"v": 99.0}, "speed": {"v": 5.0}}
    assert judge(told)["problems"] == []
    twin["reported"]["coolant_temp"]["v"] = 20.0
    assert any("coolant_temp" in problem for problem in judge(told)["problems"])


def test_a_car_without_a_twin_is_told():
    """twins must be connected; a deleted twin is none."""
    told = records()
    told.append(("twin", HEALTHY, None))
    line = judge(told)
    assert (line["twins"], line["connected"], line["ok"]) == (1, 2, False)
    assert any("no twin" in problem and HEALTHY in problem for problem in line["problems"])


def test_an_alarm_on_a_healthy_car_is_told():
    """A car without a fault must not be in alarm."""
    told = records()
    what = {"state": "alarm", "event_time": START + 2000}
    told.append(("change", {"vehicle_id": HEALTHY, "kind": "health", "what": what}))
    line = judge(told)
    assert (line["alarms"], line["alarms_on_healthy"], line["alarms_on_degraded"]) == (2, 1, 1)
    assert not line["ok"]


def test_an_alarm_before_the_onset_is_an_alarm_on_a_healthy_car():
    """Truth decides by time: before its onset a car was healthy."""
    told = records()
    only(told, "change")[0]["what"]["event_time"] = START + 1400
    line = judge(told)
    assert (line["alarms_on_healthy"], line["alarms_on_degraded"]) == (1, 0)


def test_a_failed_car_without_an_alarm_is_missed():
    """More than half of the cars that failed must have been found."""
    told = [record for record in records() if record[0] not in ("change", "score", "command")]
    line = judge(told)
    assert (line["alarms"], line["ok"]) == (0, False)
    assert any("0 of 1 cars" in problem for problem in line["problems"])


def test_a_degrading_car_that_has_not_failed_need_not_be_found():
    """A fault whose failure lies after the end of the run is not yet due."""
    third = "car-000003"
    truth = {"mode": "battery", "onset": START + 2000, "failure": START + 99_000}
    lines = [
        *car_lines(),
        {"e": "connect", "v": third, "session": START, "t": START},
        {"e": "truth", "v": third, **truth},
    ]
    told = [*records(), ("twin", third, {"reported": {}, "applied": {}})]
    line = judge(told, lines)
    assert (line["degraded"], line["alarms_on_degraded"], line["ok"]) == (2, 1, True)
    lines[-1]["failure"] = START + 2500
    assert not judge(told, lines)["ok"]


def test_an_alarm_score_that_did_not_reach_the_twin_is_told():
    """A score in alarm must show in the health of its twin."""
    told = [record for record in records() if record[0] != "change"]
    problems = judge(told)["problems"]
    assert any("not by their twin" in problem and SICK in problem for problem in problems)


@pytest.mark.parametrize(
    ("part", "value"),
    [("offset", 8), ("partition", 0), ("score", "other:1-12:v1"), ("topic", "telemetry")],
)
def test_a_cause_that_names_no_score_is_told(part, value):
    """Id, topic, partition and offset of a cause must be those of one record in `scores`."""
    told = records()
    only(told, "command")[1]["cause"][part] = value
    (problem,) = judge(told)["problems"]
    assert "name no score" in problem
    assert "c1" in problem


def test_a_rule_that_commands_without_a_cause_is_told():
    """A command by a rule must say why."""
    told = records()
    del only(told, "command")[1]["cause"]
    (problem,) = judge(told)["problems"]
    assert "name no score" in problem


def test_a_decided_command_without_an_end_is_told():
    """Commands of decisions must reach a final state."""
    told = records()
    only(told, "command")[1]["state"] = "overdue"
    line = judge(told)
    assert line["commands"] == {"overdue": 1}
    assert any("no final state: c1 (overdue)" in problem for problem in line["problems"])


def test_a_loop_without_a_decision_is_not_closed():
    """At least one command must come from a decision; a user's command does not count."""
    told = records()
    command = only(told, "command")[1]
    del command["cause"]
    command["by"] = "api"
    line = judge(told)
    assert line["commands"] == {"succeeded": 1}
    assert line["problems"] == ["no command was decided by a rule"]


@pytest.mark.parametrize("said", [None, "failed"])
def test_an_end_that_the_car_does_not_confirm_is_told(said):
    """The ledger may say succeeded only if the car said so last."""
    lines = [line for line in car_lines() if line["e"] != "command"]
    if said:
        lines.append({"e": "command", "v": SICK, "id": "c1", "state": said, "t": START + 1})
    (problem,) = judge(records(), lines)["problems"]
    assert f"c1 is succeeded, the car said {said or 'nothing'}" in problem


def test_a_message_that_no_car_sent_is_told():
    """Kafka must not have more than the cars sent."""
    told = records()
    told.insert(3, ("telemetry", telemetry(HEALTHY, 4), (0, 14)))
    problems = judge(told)["problems"]
    assert any("sent by no car" in problem and "sequence 4" in problem for problem in problems)


def test_a_fleet_that_was_killed_leaves_no_truth():
    """Without truth about a car its alarms cannot be judged."""
    lines = [line for line in car_lines() if (line["e"], line["v"]) != ("truth", HEALTHY)]
    (problem,) = judge(records(), lines)["problems"]
    assert "no truth" in problem
    assert HEALTHY in problem


def test_other_vehicles_and_earlier_runs_do_not_count():
    """Counted are the vehicles and sessions of the logs, and commands since their first connect."""
    told = records()
    told.insert(0, ("telemetry", telemetry("stranger", 1), (2, 1)))
    told.insert(0, ("telemetry", telemetry(HEALTHY, 1, session=1, event_time=1), (0, 1)))
    old = {"id": "c0", "vehicle_id": SICK, "state": "sent", "by": "rule:limit", "issued_at": 5}
    told.append(("command", f"{SICK}/c0", old))
    told.append(("rejected", HEALTHY, START - 1, None))
    what = {"state": "alarm", "event_time": START - 1}
    told.append(("change", {"vehicle_id": HEALTHY, "kind": "health", "what": what}))
    score = {"id": "s", "vehicle_id": HEALTHY, "session": 1, "state": "normal"}
    told.append(("score", score, (0, 1)))
    assert judge(told) == judge(records())


def test_no_cars_at_all_is_not_ok():
    """An empty log proves nothing."""
    cars = CarSide()
    line = account(cars, Evidence(cars.vehicles)).line()
    assert not line["ok"]
    assert "no car connected" in line["problems"]
