"""From values to HTML text: numbers with errors, images as data URIs, the page itself.

The template escapes everything that it inserts; images are base64, the style sheet is inlined, so
the page needs no other file.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

NOTHING = "-"
_DIGITS_MAX = 4  # no figure of the validation is known better


@dataclass(frozen=True)
class Picture:
    """An image with the sentence that tells how to read it.

    A wide one takes the width of the page. ``alternative`` says in words what the image shows; the
    caption tells how to read it.
    """

    name: str
    data_uri: str
    caption: str
    wide: bool = False
    alternative: str = ""


@dataclass(frozen=True)
class Rows:
    """A table: heads of the columns, rows of cells as text."""

    heads: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def data_uri(png: bytes) -> str:
    """Return PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def picture(path: Path, caption: str, *, wide: bool = False) -> Picture:
    """Return a PNG file as a picture."""
    return Picture(path.stem, data_uri(path.read_bytes()), caption, wide)


def measured(figure: Mapping[str, Any] | None) -> str:
    """Return value and error of a figure of the validation as text; null figures as a dash.

    Errors give ``0.104 ± 0.003``, intervals ``0.95 [0.93, 0.96]``; two digits of the error are
    kept.
    """
    if figure is None or figure["value"] is None:
        return NOTHING
    value = figure["value"]
    if "error" in figure:
        error = figure["error"]
        digits = _digits(error)
        text = f"{value:.{digits}f} ± {error:.{digits}f}"
    else:
        low, high = figure["low"], figure["high"]
        digits = min(_digits((high - low) / 2), 3)
        text = f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
    return text


def _digits(error: float) -> int:
    """Return the decimals that show two significant digits of an error, as far as known."""
    return (
        _DIGITS_MAX if error <= 0 else min(_DIGITS_MAX, max(0, 1 - math.floor(math.log10(error))))
    )


def number(value: object) -> str:
    """Return a plain value as text: integers in thin groups, floats to four significant digits."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return NOTHING
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if isinstance(value, int) or (value.is_integer() and abs(value) < 1e15):
        return f"{int(value):,}".replace(",", "\u202f")
    return f"{value:.4g}"


def percent(part: float, whole: float) -> str:
    """Return a share in percent."""
    return f"{100 * part / whole:.2f} %" if whole else NOTHING


def yes_or_no(passed: bool) -> str:
    """Return a truth value as text."""
    return "yes" if passed else "no"


def package_text(package: str, name: str) -> str:
    """Return the text of a file of a package."""
    return resources.files(package).joinpath(name).read_text(encoding="utf-8")


def render_page(package: str, template: str, context: Mapping[str, Any]) -> str:
    """Return the page of a package's template.

    Templates may import what ``parts.html.j2`` offers.
    """
    folders = [jinja2.PackageLoader(package, "."), jinja2.PackageLoader("particleforge.pages", ".")]
    environment = jinja2.Environment(
        loader=jinja2.ChoiceLoader(folders),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    css = package_text("particleforge.pages", "page.css")
    return environment.get_template(template).render(**context, css=css) + "\n"
