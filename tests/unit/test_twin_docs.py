"""docs/commands.md says what the code does."""

from pathlib import Path

from twin import lifecycle

PAGE = Path(__file__).parents[2] / "docs" / "commands.md"


def test_the_documented_table_is_the_one_that_the_code_runs():
    """Between the marks stands what `lifecycle.render()` gives; paste it there when it differs."""
    text = PAGE.read_text("utf-8")
    table = text.partition("<!-- states: begin -->\n")[2].partition("<!-- states: end -->")[0]
    assert table == lifecycle.render()
