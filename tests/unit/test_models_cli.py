"""The commands of models/: help that teaches, usage errors in a sentence, no TensorFlow for nothing."""

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from models.__main__ import main
from models.errors import NotEnoughData
from models.promotion import shortcomings
from models.report import text

COMMANDS = ["simulate", "train", "evaluate", "list", "promote", "scorer"]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_help_shows_an_example_of_itself(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever asks for help sees a line that can be typed."""
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert f"python -m models {command}" in capsys.readouterr().out


def test_the_overview_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    """And the order in which they are used."""
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    out = capsys.readouterr().out
    assert all(f"\n    {command} " in out for command in COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate", "--vehicles", "0", "--days", "1", "--seed", "1"], "a whole number from 1"),
        (["simulate", "--vehicles", "1", "--days", "-1", "--seed", "1"], "a number above 0"),
        (["simulate", "--vehicles", "1", "--days", "nan", "--seed", "1"], "a number above 0"),
        (
            ["simulate", "--vehicles", "1", "--days", "1", "--seed", "1", "--start", "soon"],
            "an ISO 8601 time",
        ),
        (["simulate", "--vehicles", "1", "--days", "1"], "--seed"),
        (["train", "--topic", "scores"], "'telemetry', 'history'"),
        ([], "COMMAND"),
    ],
)
def test_a_usage_error_names_the_option_and_what_is_accepted(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and a sentence."""
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert said in capsys.readouterr().err


def test_simulating_and_listing_do_not_load_tensorflow() -> None:
    """What needs no network of neurons starts in a moment and runs without it."""
    code = (
        "import sys; sys.modules['tensorflow'] = sys.modules['keras'] = None\n"
        "import models.__main__, models.simulate, models.artefact, models.registry"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_an_error_of_ours_is_one_sentence_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No stack trace reaches a user."""

    def fail(*_: object) -> dict[str, Any]:
        raise NotEnoughData("topic history is empty")

    monkeypatch.setattr("models.simulate.simulate", fail)
    assert main(["simulate", "--vehicles", "1", "--days", "1", "--seed", "1"]) == 1
    assert capsys.readouterr().err == "topic history is empty\n"


GOOD: dict[str, Any] = {
    "auc": 0.95,
    "failures": 10,
    "detected": 9,
    "healthy": 100,
    "false_alarms": 2,
}


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, None),
        ({"healthy": 19, "false_alarms": 1}, None),
        ({"auc": 0.79}, "AUC"),
        ({"auc": None}, "AUC"),
        ({"detected": 4}, "4 of 10 failures"),
        ({"failures": 0, "detected": 0}, "0 of 0 failures"),
        ({"false_alarms": 3}, "3 of 100 healthy cars"),
        ({"healthy": 19, "false_alarms": 2}, "2 of 19 healthy cars"),
    ],
)
def test_a_model_is_promoted_only_when_its_figures_are_good_enough(
    figures: dict[str, Any], said: str | None
) -> None:
    """Each figure that is not is named."""
    why = shortcomings({**GOOD, **figures})
    assert (said is None and why == []) or (said is not None and len(why) == 1 and said in why[0])


def test_the_report_shows_every_detector_and_mode() -> None:
    """A figure that does not exist is blank, not zero."""
    found = {"failures": 3, "detected": 2, "lead_s": 61.4, "healthy": 9, "false_alarms": 0}
    modes = {"by_mode": {"cooling": {"failures": 1, "detected": 0, "lead_s": None}}}
    metrics = {
        "vehicles": 12,
        "rows": 100,
        "detectors": {"scorer": {**found, **modes}, "lstm": {**found, **modes, "auc": 0.987}},
    }
    lines = text(metrics).splitlines()
    assert lines[0] == "measured on 12 cars, 100 rows"
    assert lines[2].split() == ["scorer", "2", "of", "3", "61", "s", "0", "of", "9"]
    assert lines[3].split() == ["lstm", "0.987", "2", "of", "3", "61", "s", "0", "of", "9"]
    assert lines[4].split() == ["cooling", "0", "of", "1"]


def test_progress_advances_in_lines_when_there_is_no_terminal(
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The last line says how much was done; silence is silence."""
    from models.progress import Form, steps
    from twin.kit import logs

    logs.configure("test", form="json")

    def show(form: Form) -> str:
        with steps("reading", 3, form) as advance:
            advance(2)
            advance(1, "loss 0.1")
        return capfd.readouterr().err

    shown: Callable[[Form], str] = show
    assert '"done": 3' in shown("auto")
    assert "reading: done" in shown("lines")
    assert shown("none") == ""
    assert "reading" in shown("bar")
