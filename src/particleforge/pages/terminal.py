"""Tables for the terminal.

Inputs -> outputs: rows of cells -> lines of text, columns two spaces apart. They do not depend on
the terminal: no colours, no wrapping, no trailing spaces, the same in a pipe.
"""

from collections.abc import Collection, Iterable, Sequence
from io import StringIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

_UNLIMITED = 100_000


def table_lines(
    rows: Iterable[Sequence[str]], *, right: Collection[int] = (), indent: int = 0
) -> list[str]:
    """Return one line per row; the columns numbered in ``right`` end on the right."""
    cells = [[Text(cell, end="") for cell in row] for row in rows]
    if not cells:
        return []
    grid = Table.grid(padding=(0, 2), pad_edge=False)
    for number in range(len(cells[0])):
        grid.add_column(justify="right" if number in right else "left", no_wrap=True)
    for row in cells:
        grid.add_row(*row)
    text = StringIO()
    Console(file=text, width=_UNLIMITED, color_system=None).print(grid)
    return [f"{' ' * indent}{line}".rstrip() for line in text.getvalue().splitlines()]
