"""docs/rejected.md says what the code does."""

import re
from pathlib import Path
from typing import get_args

from ingest import door
from twin.api import rejected_scan
from twin.wire.errors import Reason

PAGE = (Path(__file__).parents[2] / "docs" / "rejected.md").read_text("utf-8")


def test_the_page_has_every_reason_once_in_the_code_s_order():
    """The list is public: a code that is not explained there does not exist."""
    table = PAGE.partition("<!-- reasons: begin -->\n")[2].partition("<!-- reasons: end -->")[0]
    rows = re.findall(r"^\| `([a-z_]+)` \| ([^|]+) \| ([^|]+) \|$", table, re.MULTILINE)
    assert tuple(code for code, _, _ in rows) == get_args(Reason)
    assert len(rows) == len(table.splitlines()) - 2


def test_the_page_has_the_code_s_figures():
    """What a call looks at, and when a door counts as shut."""
    assert f"{rejected_scan.MOST_SCANNED:,} records or for {rejected_scan.MOST_S:g} s" in PAGE
    assert f"at least {door.ENOUGH} messages" in PAGE
