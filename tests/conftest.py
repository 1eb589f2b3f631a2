"""Rules for the whole suite: where shared data is, and that CI skips nothing unnamed."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parents[1]
SKIPS = ROOT / "tests" / "skips.txt"

# A busy machine must not decide a test.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def shared_folder() -> Path:
    """Where shared data is looked for (CARTWIN_SHARED, default ../shared); may not be there."""
    return Path(os.environ.get("CARTWIN_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared(shared_folder: Path) -> Path:
    """The folder of shared data; skips without it. What it is needed for has a sample besides."""
    if not shared_folder.is_dir():
        pytest.skip(f"no shared data at {shared_folder}: set CARTWIN_SHARED")
    return shared_folder


def allowed_skips(text: str) -> set[str]:
    """Node ids that `skips.txt` names."""
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return {parts[0] for parts in lines if len(parts) == 2 and not parts[0].startswith("#")}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a skipped test that skips.txt does not name fails the run."""
    if not os.environ.get("CI") or hasattr(session.config, "workerinput"):
        return  # of several processes the one that reports decides
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = {report.nodeid for report in reporter.stats.get("skipped", [])}
    unnamed = sorted(skipped - allowed_skips(SKIPS.read_text()))
    if unnamed:
        reporter.write_line(f"skipped, but not named in tests/skips.txt: {', '.join(unnamed)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests recorded by `record_property("figures", line)`."""
    for outcome in ("passed", "failed"):
        for report in terminalreporter.stats.get(outcome, ()):
            for name, line in report.user_properties:
                if name == "figures":
                    terminalreporter.write_line(line)
