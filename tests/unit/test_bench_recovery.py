"""`cartwin bench recovery`: nothing lost or doubled goes unseen, and the parts add up."""

import copy

import orjson
import pytest

import bench_recovery
from bench_accounts import Accounts
from bench_parts import events, partitions_of, parts


def telemetry(time, sequence=1, **signals):
    head = {"vehicle_id": "car-1", "event_time": time, "session": 5, "sequence": sequence}
    return {**head, "assigned": False, "suspect": [], "speed": None, **signals}


LOG = [
    telemetry(10, coolant_temp=90.0),
    telemetry(20, coolant_temp=91.0, speed=3.0),
    telemetry(15, coolant_temp=80.0),  # late: changes nothing
    telemetry(20, coolant_temp=91.0, speed=3.0),  # twice
    telemetry(30, speed=4.0),
]
"""At offsets 100, 110, ... of partition 2."""


def document(revision, offset, epoch=1, **reported):
    values = {
        "coolant_temp": {"v": 91.0, "t": 20, "n": 5, "s": 1, "o": 110},
        "speed": {"v": 4.0, "t": 30, "n": 5, "s": 1, "o": 140},
        **reported,
    }
    return {
        "vehicle_id": "car-1",
        "revision": revision,
        "epoch": epoch,
        "applied": {"telemetry": [2, offset]},
        "reported": values,
    }


def judged(*documents):
    accounts = Accounts()
    for number, fields in enumerate(LOG):
        accounts.add_telemetry(copy.deepcopy(fields), 2, 100 + 10 * number)
    for one in documents:
        accounts.add_twin("car-1", one)
    return accounts.line()


def test_a_log_that_was_applied_once_is_in_order():
    """The revision counts records that changed the twin, at each document of the log."""
    line = judged(document(1, 100), document(2, 130), document(3, 140))
    assert line["problems"] == []
    assert (line["lost"], line["applied_twice"], line["twins"]) == (0, 0, 1)


def test_a_record_that_no_document_has_is_lost():
    """The last document is behind the log."""
    line = judged(document(1, 100), document(2, 130))
    assert line["lost"] == 1
    assert line["problems"]


def test_a_record_that_was_skipped_is_lost():
    """The offset is right and the revision is too low: something in between was not applied."""
    line = judged(document(1, 100), document(2, 140))
    assert line["lost"] == 1


def test_a_record_applied_twice_is_seen_even_in_the_middle():
    """A revision too high at some document is told, though the last one may be right again."""
    line = judged(document(1, 100), document(3, 110), document(3, 140))
    assert line["applied_twice"] == 1
    assert "applied twice" in line["problems"][0]


def test_a_vehicle_without_a_twin_is_lost():
    """All of its records are."""
    assert judged()["lost"] == len(LOG)


def test_other_values_than_those_of_the_fold_are_told():
    """Though offset and revision are right."""
    wrong = {"coolant_temp": {"v": 80.0, "t": 15, "n": 5, "s": 1, "o": 120}}
    line = judged(document(3, 140, **wrong))
    assert line["lost"] == 0
    assert "coolant_temp" in line["problems"][0]


def test_a_late_write_of_a_former_owner_does_not_count():
    """Its epoch is lower than what the key has: recovery and readers pass it over."""
    line = judged(document(1, 100, epoch=3), document(3, 140, epoch=4), document(2, 130, epoch=3))
    assert (line["late_writes"], line["lost"], line["problems"]) == (1, 0, [])


def event(name, second, *partitions, **fields):
    stamp = f"2026-11-23T09:00:{second:06.3f}Z"
    told = {"event": name, "timestamp": stamp, "partitions": [*partitions], **fields}
    return orjson.dumps(told) + b"\n"


START = events([event("revoked", 0)])[0].at

TAKEOVER = [
    b"Traceback of something else\n",
    event("resumed", 1, 0, 1),
    event("revoked", 16, 0, 1),
    event("restoring", 16.5, 0, 1, 2, 3),
    event("restored", 18, 0, 1, 2, 3, twins=50, records=70, from_copy=0),
    event("resumed", 18.25, 0, 1, 2, 3, seconds=2.25),
    b'{"event":"restor',
]


def test_the_parts_of_a_takeover_add_up():
    """Detection, rebalance, restore, resume and first write make the total."""
    told = parts(events(TAKEOVER), START + 10, frozenset({2, 3}), START + 18.5, restarted=False)
    assert told is not None
    assert told["detection_s"] == pytest.approx(6)
    assert told["rebalance_s"] == pytest.approx(0.5)
    assert told["restore_s"] == pytest.approx(1.5)
    assert told["resume_s"] == pytest.approx(0.25)
    assert told["first_write_s"] == pytest.approx(0.25)
    assert told["total_s"] == pytest.approx(8.5)
    assert told["restored_twins"] == 50
    assert told["pause_s"] == 2.25


def test_a_restart_has_a_start_and_no_detection():
    """What precedes its first event is the process coming up."""
    log = [event("restoring", 12, 2), event("restored", 13, 2), event("resumed", 13, 2)]
    told = parts(events(log), START + 10, frozenset({2}), START + 14, restarted=True)
    assert told is not None
    assert told["start_s"] == pytest.approx(2)
    assert "detection_s" not in told


def test_who_took_nothing_has_no_parts():
    """The log of a worker that serves other partitions says nothing about these."""
    found = events(TAKEOVER)
    assert parts(found, START + 10, frozenset({9}), START + 18, restarted=False) is None
    assert parts(found, START + 30, frozenset({2}), START + 40, restarted=False) is None


def test_a_worker_serves_what_it_resumed_last():
    """Earlier assignments do not count."""
    assert partitions_of(events(TAKEOVER)) == {0, 1, 2, 3}
    assert partitions_of([]) == frozenset()


def test_a_median_above_its_limit_is_missed():
    """Warm restores must be quicker than cold ones."""
    found = {"total_s": 9.0, "restore_s": 1.0}
    assert bench_recovery.missed_limits({"takeover": found}) == []
    assert bench_recovery.missed_limits({"restart-warm": found}) == [
        "restart-warm: total_s is 9.0, at most 8 is accepted"
    ]


@pytest.mark.parametrize("words", [["--ways", "reboot"], ["--ways", ""], ["--rate", "1"]])
def test_wrong_options_are_refused(words, capsys):
    """Exit code 2, naming what is accepted."""
    with pytest.raises(SystemExit) as ended:
        bench_recovery.arguments(words)
    assert ended.value.code == 2
    assert "accepted" in capsys.readouterr().err


def test_a_restore_is_told_in_microseconds_a_twin():
    """Of the last one; without twins there is nothing to tell."""
    lines = [
        orjson.dumps(
            {
                "event": "restored", "timestamp": "2026-01-01T00:00:00Z", "partitions": [0],
                "twins": twins, "seconds_reading": 0.5, "seconds_building": 1.0,
            }
        )
        for twins in (7, 100_000)
    ]  # fmt: skip
    told = bench_recovery.restoring_us(events(lines))
    assert told == {"reading_us_a_twin": 5.0, "building_us_a_twin": 10.0}
    assert bench_recovery.restoring_us(events([lines[0].replace(b":7,", b":0,")])) == {}
