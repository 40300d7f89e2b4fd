"""The validation's plots, each a PNG and a PDF.

Inputs -> outputs: figures (``metrics``) and histograms -> files in a folder; ``captions`` says how
to read each. Samples are taken together except where named. Error bars are statistical: bootstrap
for medians and resolutions, Wilson intervals of 68.3 % for proportions.
"""

from pathlib import Path

from particleforge.pages.figures import save_figure, styled
from particleforge.validation.captions import captions
from particleforge.validation.closure_plots import class_spectra, closure_jets, elements_per_event
from particleforge.validation.event_plots import (
    met,
    met_resolution,
    reliability,
    visible_energy,
)
from particleforge.validation.jet_plots import (
    dijet_mass,
    jet_efficiency,
    jet_pt,
    jet_resolution,
    jet_resolution_by_sample,
    jet_response,
)
from particleforge.validation.particle_plots import (
    above_one,
    confusion,
    particle_efficiency,
    particle_response,
    splitting_merging,
)
from particleforge.validation.plot_parts import Results


def draw_plots(results: Results, folder: Path) -> None:
    """Write every plot that has a caption into ``folder``, which exists."""
    plots = {
        draw.__name__: draw
        for draw in (
            *(jet_response, jet_resolution, jet_resolution_by_sample, jet_efficiency, jet_pt),
            *(dijet_mass, splitting_merging, above_one),
            *(met, met_resolution, visible_energy, confusion, reliability),
            *(closure_jets, class_spectra, elements_per_event),
        )
    }
    classes = {c.name: c for c in results.settings.particle_classes}
    with styled():
        has_dijets = "dijet_mass" in results.figures
        for name in captions(results.settings.particle_classes, dijets=has_dijets):
            if name in plots:
                figure = plots[name](results)
            else:
                kind, _, of_class = name.partition("_")
                draw = {"efficiency": particle_efficiency, "response": particle_response}[kind]
                figure = draw(results, classes[of_class])
            save_figure(figure, folder / name)
