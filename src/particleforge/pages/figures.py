"""How figures look and how they are written: one style, PNG and PDF, reproducible bytes.

Figures are made through the object interface (``Figure``), never ``pyplot``, so no state is shared
and no display is needed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from particleforge.artefacts import atomic_output

STYLE: Any = {
    "font.size": 11,
    "axes.labelsize": 12,
    "axes.titlesize": 12,
    "legend.fontsize": 10,
    "legend.frameon": False,
    "xtick.direction": "in",
    "ytick.direction": "in",
    "xtick.top": True,
    "ytick.right": True,
    "xtick.minor.visible": True,
    "ytick.minor.visible": True,
    "lines.linewidth": 1.6,
    "axes.grid": False,
    "figure.dpi": 100,
    "savefig.dpi": 130,
    "svg.hashsalt": "particleforge",
    "pdf.compression": 6,
}
# Okabe & Ito's palette, safe for colour-blind readers; one colour, marker and line per view of the
# events, everywhere
COLOURS = {
    "truth": "#222222",
    "target": "#009e73",
    "ideal": "#cc79a7",
    "mlpf": "#d55e00",
    "baseline": "#0072b2",
}
MARKERS = {"truth": "D", "target": "s", "ideal": "v", "mlpf": "o", "baseline": "^"}
LINES = {"truth": "--", "target": ":", "ideal": "-.", "mlpf": "-", "baseline": "-"}
LABELS = {
    "truth": "truth",
    "target": "targets",
    "ideal": "ideal PF",
    "mlpf": "MLPF",
    "baseline": "baseline PF",
}


@contextmanager
def styled() -> Iterator[None]:
    """Apply the style to what is drawn and saved inside."""
    with mpl.rc_context(STYLE):
        yield


def new_figure(width: float = 6.4, height: float = 4.8) -> Figure:
    """Return an empty figure (inches) that lays itself out."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def annotate(axes: Axes, left: str, right: str) -> None:
    """Write what is seen (detector, sample) and how much of it (events) above the axes."""
    axes.set_title(left, loc="left", fontsize=9.5)
    axes.set_title(right, loc="right", fontsize=9.5)


def png_bytes(figure: Figure) -> bytes:
    """Return the figure as PNG, without time stamp or program name."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def save_figure(figure: Figure, path: Path) -> None:
    """Write ``<path>.png`` and ``<path>.pdf``, each atomically.

    Any suffix of ``path`` is replaced.
    """
    with atomic_output(path.with_suffix(".png")) as temporary:
        temporary.write_bytes(png_bytes(figure))
    with atomic_output(path.with_suffix(".pdf")) as temporary:
        figure.savefig(
            temporary,
            format="pdf",
            metadata={"CreationDate": None, "Producer": None, "Creator": None},
        )
