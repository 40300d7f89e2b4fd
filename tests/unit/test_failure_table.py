"""docs/failure.md and the tests that provoke faults name the same faults, and quote the same
messages.

A test says what it provokes with ``@pytest.mark.fault("name")`` (several markers are allowed); a
row of the table begins with that name. Backticked text in the column "what you see" must occur in a
string of one of the row's tests, regular expressions with their backslashes taken out.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COLUMNS = ["fault", "what happens", "what you see", "what to do", "lost"]


@cache
def marked_tests() -> dict[str, list[ast.FunctionDef]]:
    """Return the tests of each fault, read without importing them."""
    found: dict[str, list[ast.FunctionDef]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for function in ast.walk(ast.parse(path.read_text())):
            if isinstance(function, ast.FunctionDef):
                for name in fault_names(function):
                    found.setdefault(name, []).append(function)
    return found


def fault_names(function: ast.FunctionDef) -> set[str]:
    """Return the names in a test's markers, also those of single parameters."""
    calls = [
        node
        for decorator in function.decorator_list
        for node in ast.walk(decorator)
        if isinstance(node, ast.Call)
    ]
    return {
        ast.literal_eval(call.args[0])
        for call in calls
        if ast.unparse(call.func) == "pytest.mark.fault"
    }


def table_rows() -> list[dict[str, str]]:
    """Return the rows of the table as column -> text."""
    lines = [
        line for line in (ROOT / "docs/failure.md").read_text().splitlines() if line.startswith("|")
    ]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert cells[0] == COLUMNS
    return [dict(zip(COLUMNS, row, strict=True)) for row in cells[2:]]


def strings_of(function: ast.FunctionDef) -> str:
    """Return all string constants of a test, one per line, without the backslashes of regular
    expressions.
    """
    constants = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    return "\n".join(constants).replace("\\", "")


def test_every_fault_has_a_row_and_a_test():
    rows = [row["fault"] for row in table_rows()]
    assert len(rows) == len(set(rows))
    assert set(rows) == set(marked_tests())


@pytest.mark.parametrize("row", table_rows(), ids=lambda row: row["fault"])
def test_a_row_is_filled_and_quotes_what_its_tests_assert(row):
    assert all(row.values())
    asserted = "\n".join(strings_of(function) for function in marked_tests().get(row["fault"], []))
    for quoted in re.findall(r"`([^`]+)`", row["what you see"]):
        assert quoted in asserted, f"no test of '{row['fault']}' asserts: {quoted}"
