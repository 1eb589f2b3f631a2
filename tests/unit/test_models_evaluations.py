"""All evaluations by one command: what ran, what was missed, what could not run."""

import subprocess
from pathlib import Path
from typing import Any

import orjson
import pytest

from models import evaluations


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Commands that were started; each leaves the figures that its process would leave."""
    commands: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        commands.append(command[2:])
        name, out = command[2].removeprefix("models."), Path(command[command.index("--out") + 1])
        if name != "cmapss":
            out.mkdir(parents=True, exist_ok=True)
            missed = ["too few found"] if name == "carobd" else []
            told = {"ok": not missed, "missed": missed, "name": name}
            (out / f"{name}.json").write_bytes(orjson.dumps(told))
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(evaluations.subprocess, "run", run)
    return commands


def _data(folder: Path, *names: str) -> str:
    for name in names:
        (folder / name).mkdir(parents=True)
    return str(folder)


def test_each_has_its_data_and_its_folder(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line for programs; a missed figure and a process that left nothing fail the whole."""
    data = _data(tmp_path / "data", "cmapss-fd001", "carobd-etios")
    out = tmp_path / "out"
    # Figures of an earlier run must not stand for one that left none.
    (out / "cmapss").mkdir(parents=True)
    (out / "cmapss" / "cmapss.json").write_bytes(b'{"ok":true,"missed":[]}')
    assert evaluations.main(["--data", data, "--out", str(out), "--json"]) == 1
    told = orjson.loads(capsys.readouterr().out)
    assert told["ok"] is False
    assert told["missed"] == [
        "cmapss: not measured, it ended with code 1",
        "carobd: too few found",
    ]
    assert told["evaluations"]["fleet"] == {"ok": True, "missed": [], "name": "fleet"}
    assert [command[0] for command in ran] == ["models.fleet", "models.cmapss", "models.carobd"]
    assert "--data" not in ran[0]
    assert ran[1][-2:] == ["--data", str(tmp_path / "data" / "cmapss-fd001")]


def test_a_data_set_that_is_missing_is_named_and_stops_no_other(
    ran: list[list[str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where it was looked for, and what it is."""
    data = _data(tmp_path / "data", "carobd-etios")
    assert evaluations.main(["--data", data, "--out", str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert f"no folder {tmp_path / 'data' / 'cmapss-fd001'}; it should hold C-MAPSS" in told.err
    assert "missed: cmapss: not measured" in told.out
    assert [command[0] for command in ran] == ["models.fleet", "models.carobd"]
