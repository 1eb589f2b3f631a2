"""`cartwin bench twin`: its options, its sums, and that a wrong state never passes."""

import orjson
import pytest

import bench_twin
from bench_records import Expected, Plan, records, rounds
from bench_run import Figures, Sample, check, rate, settings_of
from bench_state import peer
from peer_fold import decode, fold


def figures(cpu_us, per_s, problems=()):
    return Figures(cpu_us, per_s, 10.0, 100.0, 1000, 1200, {"kafka": 9.0}, {"a": 1}, [*problems])


class Changelog:
    """Kafka as `check` sees it."""

    def __init__(self, entries):
        self._entries = entries

    def read(self, _topic):
        for key, value in self._entries:
            yield Entry(key, value)


class Entry:
    def __init__(self, key, value):
        self.key = lambda: key
        self.value = lambda: value


@pytest.fixture
def run():
    """What must come out of a small load, and the changelog that a right peer writes."""
    plan = Plan(vehicles=20, messages=100, start_ms=1_790_000_000_000)
    expected, states, log = Expected(plan), {}, []
    for one in rounds(plan):
        expected.add(one)
        for key, value, _ in records(plan, one):
            state = fold(states.get(key), decode(value))
            if state is not None:
                states[key] = state
                log.append((key, orjson.dumps(state)))
    return expected, log


def test_a_right_changelog_is_equal(run):
    """The last state of every vehicle is the fold of all records."""
    expected, log = run
    problems, size = check(Changelog(log), "t", peer, expected)
    assert problems == []
    assert size > 500


def test_a_missing_vehicle_a_lost_update_and_a_stranger_are_told(run):
    """None of them passes as a good run."""
    expected, log = run
    lacking = [entry for entry in log if entry[0] != b"car-000003"]
    last = next(i for i in range(len(log) - 1, 0, -1) if log[i][0] == b"car-000004")
    behind = log[:last] + log[last + 1 :]
    stranger = [*log, (b"car-000099", log[0][1])]
    for wrong, word in (
        (lacking, "car-000003 has no state"),
        (behind, "car-000004"),
        (stranger, "car-000099 was never sent"),
    ):
        assert word in check(Changelog(wrong), "t", peer, expected)[0][0]


def test_a_deleted_state_is_missing(run):
    """A tombstone is no state."""
    expected, log = run
    problems, _ = check(Changelog([*log, (b"car-000005", None)]), "t", peer, expected)
    assert "car-000005 has no state" in problems[0]


def test_the_rate_is_taken_behind_the_feeding():
    """While records are fed a core is busy with that; what is left then shows the process alone."""
    samples = [Sample(0, 0, 0), Sample(1, 100, 1), Sample(2, 300, 2), Sample(3, 500, 3)]
    samples.append(Sample(9, 500, 3))
    assert rate(samples, fed_at=1.0, messages=500) == pytest.approx(200)


def test_the_rate_of_a_short_run_is_taken_over_all_of_it():
    """When nearly nothing is left behind the feeding, a part would be chance."""
    samples = [Sample(0, 0, 0), Sample(1, 450, 1), Sample(2, 500, 2)]
    assert rate(samples, fed_at=1.0, messages=1000) == pytest.approx(500)


def test_settings_are_what_the_process_said(tmp_path):
    """Its first JSON line; a process that says nothing has none."""
    log = tmp_path / "peer.log"
    log.write_bytes(b'warning: x\n{"settings":{"linger":20}}\n{"settings":{"linger":1}}\n')
    assert settings_of(log) == {"linger": 20}
    log.write_bytes(b"nothing\n")
    assert settings_of(log) == {}


def test_ratios_say_how_many_times_better_cartwin_is():
    """CPU: peer by cartwin; rate: cartwin by peer. Judged without the view, which peers do not have."""
    results = {
        name: bench_twin.summary([figures(cpu, per_s)] * 3)
        for name, cpu, per_s in (
            ("cartwin", 30, 30_000),
            ("cartwin-table", 25, 36_000),
            ("quix", 75, 12_000),
        )
    }
    assert bench_twin.ratios(results, "cpu_us") == {"quix": 3.0}
    assert bench_twin.ratios(results, "rate") == {"quix": 3.0}
    assert bench_twin.ratios(results, "rate", "cartwin") == {"quix": 2.5}
    del results["cartwin-table"]
    assert bench_twin.ratios(results, "cpu_us") == {}


def test_a_ratio_below_its_target_is_missed():
    """In CPU as in rate; a peer that did not run misses nothing."""
    assert bench_twin.missed_targets({"quix": 2.0}, {"quix": 2.5}) == []
    missed = bench_twin.missed_targets({"quix": 1.9}, {"kafka-streams": 1.4})
    assert len(missed) == 2
    assert "quix" in missed[0]
    assert "kafka-streams" in missed[1]


def test_a_summary_is_of_medians():
    """One odd run does not decide."""
    found = bench_twin.summary([figures(30, 1), figures(31, 2), figures(90, 3, ["wrong"])])
    assert (found["cpu_us"], found["rate"], found["equal"]) == (31, 2, False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--peers", "flink"], "faust-take"),
        (["--peers", ""], "cartwin"),
        (["--messages", "5"], "at least 1000"),
        (["--runs", "0"], "at least 1"),
    ],
)
def test_wrong_options_end_with_a_sentence(words, said, capsys):
    """Exit code 2, naming what is accepted."""
    with pytest.raises(SystemExit) as ended:
        bench_twin.arguments(words)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_peers_are_chosen_once_each_and_in_order():
    """The runs alternate in the order given."""
    chosen = bench_twin.arguments(["--peers", "quix,cartwin,quix"]).peers
    assert [peer.name for peer in chosen] == ["quix", "cartwin"]
