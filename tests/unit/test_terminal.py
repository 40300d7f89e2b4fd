"""Tables for the terminal are the same wherever they are printed."""

import pytest

from particleforge.pages.terminal import table_lines

ROWS = [("name", "n", "why"), ("short", "1", ""), ("longer [x]", "1000", ":smile: " + "long " * 40)]


def test_columns_are_as_wide_as_their_widest_cell():
    assert table_lines(ROWS, right={1}, indent=2) == [
        "  name           n  why",
        "  short          1",
        "  longer [x]  1000  :smile: " + ("long " * 40).rstrip(),
    ]
    assert table_lines([]) == []


def test_the_terminal_makes_no_difference(monkeypatch: pytest.MonkeyPatch):
    expected = table_lines(ROWS)
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "20", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    assert table_lines(ROWS) == expected
