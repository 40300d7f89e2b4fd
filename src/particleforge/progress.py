"""Bars that show how far a stage is, on a terminal only.

Parts of a stage's work -> the same parts, one after the other, counted by a bar on standard error.
There is none where standard error is no terminal, and none in jobs (``hidden``): several write to
one terminal at once, and Snakemake counts them.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar

from tqdm import tqdm

_Part = TypeVar("_Part")
_HIDDEN = ContextVar("hidden", default=False)


@contextmanager
def hidden() -> Iterator[None]:
    """Show no bars."""
    token = _HIDDEN.set(True)
    try:
        yield
    finally:
        _HIDDEN.reset(token)


def shown(
    parts: Iterable[_Part],
    unit: str,
    total: int | None = None,
    size: Callable[[_Part], int] = lambda _: 1,
    done: int = 0,
) -> Iterator[_Part]:
    """Yield the parts; a bar counts them, or what ``size`` says of each, from ``done`` to total.

    A part counts once it is dealt with.
    """
    bar = tqdm(
        total=total,
        initial=done,
        unit=unit if unit == "B" else f" {unit}",
        unit_scale=unit == "B",
        leave=False,
        disable=_HIDDEN.get() or None,
    )
    with bar:
        for part in parts:
            yield part
            bar.update(size(part))


def write_beside_bars() -> Any:
    """Return a context in which other text may go to the terminal."""
    return tqdm.external_write_mode()
