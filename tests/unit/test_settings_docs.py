"""docs/settings.md and the help name every setting that a process reads, as the code has it."""

import re
from pathlib import Path

import pytest

from ingest.settings import IngestSettings, UplinkSettings
from models.settings import ScorerSettings, StoreSettings, TrainerSettings
from twin.__main__ import main
from twin.api.settings import ApiSettings
from twin.kit.registry_settings import SchemaRegistry
from twin.kit.security import KafkaSecurity
from twin.kit.settings import Settings, described
from twin.settings import WorkerSettings

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"
TABLES = {
    "kafka": (KafkaSecurity, None),
    "schema registry": (SchemaRegistry, None),
    "every process": (Settings, KafkaSecurity),
    "uplink and downlink": (IngestSettings, Settings),
    "uplink": (UplinkSettings, IngestSettings),
    "worker": (WorkerSettings, Settings),
    "api": (ApiSettings, Settings),
    "scorer and trainer": (StoreSettings, Settings),
    "scorer": (ScorerSettings, StoreSettings),
    "trainer": (TrainerSettings, StoreSettings),
}


def table(group, base):
    """Markdown of the settings that `group` adds to `base`, without those with a table of their own."""
    known = {*base.model_fields, *SchemaRegistry.model_fields} if base else set()
    rows = ["| variable | default | accepted | meaning |", "|---|---|---|---|"]
    for name, default, accepted, meaning in described(group):
        if name.lower() not in known:
            rows.append(
                f"| `{name}` | {f'`{default}`' if default else ''} | {accepted} | {meaning} |"
            )
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize("name", TABLES)
def test_the_page_has_every_setting_as_the_code_does(name):
    """Between the marks stands what `table` gives; paste it there when it differs."""
    text = PAGE.read_text("utf-8")
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
    assert text.partition(begin)[2].partition(end)[0] == table(*TABLES[name])


def test_the_worker_s_help_lists_its_settings(capsys):
    """With defaults and what is accepted."""
    with pytest.raises(SystemExit) as caught:
        main(["worker", "--help"])
    assert caught.value.code == 0
    said = capsys.readouterr().out
    named = re.findall(r"^  ([A-Z_]+)=", said, re.MULTILINE)
    assert named == [name.upper() for name in WorkerSettings.model_fields]
    assert "OPEN_COMMANDS_MAX=50\n" in said
    assert "(at least 1, at most 50)" in said
    assert "(true, false)" in said
    assert "(memory, rocksdb)" in said
