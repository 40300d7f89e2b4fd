"""The validation's figures, computed from its histograms.

Inputs -> outputs: filled histograms -> nested plain values, the content of ``metrics.json``:

* ``n_events``, their ``sum_of_weights``, and ``reconstructions``, all names that ``<reco>`` stands
  for. Events count with their weights everywhere else (``quantiles``), so ``n``, ``passed`` and
  ``total`` are sums of weights;
* ``gap_closed.jets`` and ``gap_closed.visible_energy``: the share of the gap from baseline to ideal
  that mlpf closes (``gap``), with ``value`` and ``error``; there if ideal is;
* ``over_baseline.jets``, ``over_baseline.visible_energy``: the resolution of mlpf over that of the
  baseline, ``value`` and ``error``, of the same events;
* ``jets.inclusive.<reco>``: ``efficiency``, ``fake_rate`` (proportions), ``response`` (``n``,
  ``median``, ``iqr``, ``resolution`` = IQR/median of pT reconstructed / truth), above the first
  edge of ``plots.jet_pt_edges_gev``;
* ``jets.pt_bins``: a list of ``{"low", "high", <reco>: likewise}``, GeV of truth pT (fake rate: of
  reconstructed pT);
* ``met.inclusive.<reco>``: ``residual`` (median and IQR of reconstructed - truth, GeV) and
  ``component_residual``; ``met.truth_bins``: the residual in bins of the true missing transverse
  momentum, the last one open-ended;
* ``visible_energy.<reco>``: ``n``, ``median``, ``iqr``, ``resolution`` of the ratio to truth;
* ``particles.<class>.<reco>``: ``efficiency``, ``found``, ``fake_rate``, ``mislabelled``,
  ``splitting``, ``merging``, ``wrong_charge`` (charged classes), ``pt_response``,
  ``energy_response``, ``angle_mrad`` (``n``, ``median``, ``iqr``), and lists ``by_pt`` and
  ``by_eta``; of mlpf ``target_pt_response`` and ``target_energy_response``, too. Responses have
  ``above_one``, the proportion above 1;
* ``one_sided``: names of those responses of mlpf that are above 1, or below, in less than 5 %;
* ``dijet_mass.<view>``: ``n``, ``median``, ``iqr``, ``resolution`` of the mass in GeV, for truth
  and each ``<reco>``; there if a sample has such events;
* ``closure.inclusive.<stage>``: ``n``, ``median``, ``iqr``, ``resolution`` of jet pT over that of
  the generator's jet, for the stages ``truth`` (visible particles) and ``target``;
  ``closure.pt_bins``: a list of ``{"low", "high", <stage>: likewise}``;
* ``confusion.<reco>``: counts ``[truth class][candidate class]`` and ``classes``;
* ``reliability``: ``bins`` of the weights of the model's candidates, and the
  ``expected_calibration_error`` (``scores``);
* ``by_sample.<sample>``: the same without the particles' bins;
* ``held_out``: samples that training never saw. Only ``by_sample`` has their events.

``<reco>`` is target, ideal (where events have deposits), mlpf or baseline. Definitions: ``events``,
``jets``, ``closure``, ``met``, ``particles``, ``sharing``, ``dijets``, ``quantiles``, ``gap``.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from particleforge.config.settings import ValidateSettings
from particleforge.seeds import generator_of
from particleforge.validation.events import TRUTH
from particleforge.validation.gap import gap_closed, over_baseline
from particleforge.validation.histograms import (
    CLOSURE,
    Hists,
    plain,
    reconstructions,
    without_held_out,
)
from particleforge.validation.quantiles import (
    Sums,
    above_one,
    effective_number,
    proportion,
    summary,
)
from particleforge.validation.scores import reliability

Tree = dict[str, Any]
_BOTH_SIDES_MIN = 0.05  # share of a response on either side of 1, below which it is one-sided


def compute_metrics(hists: Hists, settings: ValidateSettings) -> Tree:
    """Return all figures over all samples, and per sample below ``by_sample``."""
    everything = _Figures(without_held_out(hists, settings), settings, None).all(binned=True)
    everything["held_out"] = sorted(n for n, one in settings.samples.items() if one.held_out)
    everything["by_sample"] = {
        name: _Figures(hists, settings, name).all(binned=False) for name in sorted(settings.samples)
    }
    return everything


def one_sided(particles: Tree) -> list[str]:
    """Return which responses of the model's candidates do not straddle 1: ``<class>.mlpf.<key>``.

    With 68.3 % confidence less than 5 % of such a response is above 1, or less than 5 % below.
    """
    return [
        f"{name}.mlpf.{key}"
        for name, of_class in particles.items()
        for key, figure in of_class["mlpf"].items()
        if isinstance(figure, dict) and "above_one" in figure
        if (share := figure["above_one"])["value"] is not None
        if share["high"] < _BOTH_SIDES_MIN or share["low"] > 1 - _BOTH_SIDES_MIN
    ]


class _Figures:
    """Figures of one sample, or of all together (``sample`` None)."""

    def __init__(self, hists: Hists, settings: ValidateSettings, sample: str | None) -> None:
        self.settings = settings
        self.sample = sample
        which = sum if sample is None else sample
        self.n_events = int(hists["events"][{"process": which}])
        self.reconstructions = reconstructions(hists)
        self.hists = {name: h[{"process": which}] for name, h in hists.items()}

    def all(self, *, binned: bool) -> Tree:
        particles = {
            c.name: {
                reco: self.particle(c.name, c.charged, reco, binned)
                for reco in self.reconstructions
            }
            for c in self.classes
        }
        return {
            "n_events": self.n_events,
            "sum_of_weights": plain(self.hists["sum_of_weights"].value),
            "reconstructions": list(self.reconstructions),
            "over_baseline": self.compared(over_baseline, ("mlpf", "baseline")),
            **(
                {"gap_closed": self.compared(gap_closed, ("ideal", "mlpf", "baseline"))}
                if "ideal" in self.reconstructions
                else {}
            ),
            "jets": self.jets(),
            "closure": self.closure(),
            "met": self.met(),
            "visible_energy": {
                reco: self.summary(
                    "visible_energy_response",
                    self.counts("visible_energy_response_fine", reco=reco),
                    reco,
                )
                for reco in self.reconstructions
            },
            "particles": particles,
            "one_sided": one_sided(particles),
            **({"dijet_mass": self.dijet_mass()} if self.has_dijets else {}),
            "reliability": self.reliability(),
            "confusion": {
                "classes": list(self.hists["confusion"].axes["true_class"]),
                **{
                    reco: plain(self.counts("confusion", reco=reco)[..., 0])
                    for reco in self.reconstructions
                },
            },
        }

    @property
    def classes(self) -> tuple[Any, ...]:
        return self.settings.particle_classes

    def counts(self, name: str, **where: str) -> Sums:
        """Return the sums at the given categories; numeric axes keep their flow bins."""
        found = self.hists[name][where]
        return np.stack([found.values(flow=True), found.variances(flow=True)], axis=-1)

    def summary(self, name: str, counts: Sums, *labels: object, relative: bool = True) -> Tree:
        """Return median, IQR and resolution of a fine histogram's ``counts``.

        Flow bins are included and empty.
        """
        edges = self.hists[f"{name}_fine"].axes[-1].edges
        generator = generator_of(self.settings.seed, "validate", name, self.sample, *labels)
        n_bootstrap = self.settings.validation.n_bootstrap
        return summary(
            counts[1:-1], edges, relative=relative, n_bootstrap=n_bootstrap, generator=generator
        )

    def response(self, name: str, counts: Sums, *labels: object) -> Tree:
        """Return the summary of a response to 1, and the share of it that is above 1."""
        return {**self.summary(name, counts, *labels), "above_one": above_one(counts[1:-1])}

    def compared(self, figure: Callable[..., Tree | None], names: Sequence[str]) -> Tree:
        """Return a figure of ``gap`` of the responses of some reconstructions."""
        # above the first edge
        jets = {reco: self.counts("jet_response_fine", reco=reco)[1:].sum(axis=0) for reco in names}
        energy = {reco: self.counts("visible_energy_response_fine", reco=reco) for reco in names}
        found = {}
        for key, name, counts in (
            ("jets", "jet_response", jets),
            ("visible_energy", "visible_energy_response", energy),
        ):
            drawn = self.hists[f"{name}_resampled_fine"]
            resampled = {
                reco: np.vstack([one[:, 0], drawn[{"reco": reco}].values(flow=True)])[:, 1:-1]
                for reco, one in counts.items()
            }
            least = min(effective_number(one.sum(axis=0)) for one in counts.values())
            found[key] = figure(resampled, self.hists[f"{name}_fine"].axes[-1].edges, least)
        return found

    def jets(self) -> Tree:
        edges = self.settings.plots.jet_pt_edges_gev
        inclusive = slice(1, None)  # above the first edge, overflow included
        return {
            "inclusive": {
                reco: self.jet(reco, inclusive, "inclusive") for reco in self.reconstructions
            },
            "pt_bins": [
                {
                    "low": edges[i],
                    "high": edges[i + 1],
                    **{
                        reco: self.jet(reco, slice(i + 1, i + 2), i)
                        for reco in self.reconstructions
                    },
                }
                for i in range(len(edges) - 1)
            ],
        }

    def jet(self, reco: str, bins: slice, label: object) -> Tree:
        missed, matched = self.counts("jet_truth", reco=reco)[bins].sum(axis=0)
        fake, real = self.counts("jet_reco", reco=reco)[bins].sum(axis=0)
        response = self.counts("jet_response_fine", reco=reco)[bins].sum(axis=0)
        return {
            "efficiency": proportion(matched, missed + matched),
            "fake_rate": proportion(fake, fake + real),
            "response": self.summary("jet_response", response, reco, label),
        }

    def closure(self) -> Tree:
        edges = self.settings.plots.jet_pt_edges_gev
        # above the first edge
        counts = {
            stage: self.counts("closure_jet_response_fine", stage=stage)[1:] for stage in CLOSURE
        }
        return {
            "inclusive": {
                stage: self.summary("closure_jet_response", found.sum(axis=0), stage)
                for stage, found in counts.items()
            },
            "pt_bins": [
                {
                    "low": edges[i],
                    "high": edges[i + 1],
                    **{
                        stage: self.summary("closure_jet_response", found[i], stage, i)
                        for stage, found in counts.items()
                    },
                }
                for i in range(len(edges) - 1)
            ],
        }

    def met(self) -> Tree:
        edges = self.hists["met_residual"].axes["true_met"].edges
        # no underflow: a norm
        residuals = {
            reco: self.counts("met_residual_fine", reco=reco)[1:] for reco in self.reconstructions
        }
        for counts in residuals.values():
            counts[-2] += counts[-1]  # the last bin takes what lies beyond
        return {
            "inclusive": {
                reco: {
                    "residual": self.summary(
                        "met_residual", residuals[reco][:-1].sum(axis=0), reco, relative=False
                    ),
                    "component_residual": self.summary(
                        "met_component_residual",
                        self.counts("met_component_residual_fine", reco=reco),
                        reco,
                        relative=False,
                    ),
                }
                for reco in self.reconstructions
            },
            "truth_bins": [
                {
                    "low": float(edges[i]),
                    "high": float(edges[i + 1]),
                    **{
                        reco: self.summary(
                            "met_residual", residuals[reco][i], reco, i, relative=False
                        )
                        for reco in self.reconstructions
                    },
                }
                for i in range(len(edges) - 1)
            ],
        }

    def particle(self, name: str, charged: bool, reco: str, binned: bool) -> Tree:
        truth = self.counts("truth_by_pt", reco=reco, true_class=name)
        candidates = self.counts("candidates_by_pt", reco=reco, found_class=name)
        missed, other, same = truth.sum(axis=0)
        fake, mislabelled, correct = candidates.sum(axis=0)
        figures: Tree = {
            "efficiency": proportion(same, missed + other + same),
            "found": proportion(other + same, missed + other + same),
            "fake_rate": proportion(fake, fake + mislabelled + correct),
            "mislabelled": proportion(mislabelled, fake + mislabelled + correct),
        }
        responses = {
            kind: self.counts(f"particle_{kind}_fine", reco=reco, true_class=name)
            for kind in ("pt_response", "energy_response")
        }
        for kind, counts in responses.items():
            figures[kind] = self.response(f"particle_{kind}", counts.sum(axis=0), name, reco)
        if reco == "mlpf":
            for kind in ("target_pt_response", "target_energy_response"):
                counts = self.counts(f"{kind}_fine", true_class=name)
                figures[kind] = self.response(kind, counts, name)
        for kind, axis in (("splitting", "true_class"), ("merging", "found_class")):
            alone, shared = self.counts(kind, **{"reco": reco, axis: name})
            figures[kind] = proportion(shared, alone + shared)
        angles = self.counts("particle_angle_fine", reco=reco, true_class=name).sum(axis=0)
        figures["angle_mrad"] = self.summary("particle_angle", angles, name, reco, relative=False)
        if charged:
            wrong, right = self.counts("charge", reco=reco, true_class=name)
            figures["wrong_charge"] = proportion(wrong, wrong + right)
        if binned:
            figures["by_pt"] = self._bins(
                self.settings.plots.particle_pt_edges_gev, truth, candidates
            )
            for i, row in enumerate(figures["by_pt"]):
                row.update(
                    {
                        k: self.summary(f"particle_{k}", c[i + 1], name, reco, i)
                        for k, c in responses.items()
                    }
                )
            by_eta = (
                self.counts("truth_by_eta", reco=reco, true_class=name),
                self.counts("candidates_by_eta", reco=reco, found_class=name),
            )
            figures["by_eta"] = self._bins(self.settings.plots.eta_edges, *by_eta)
        return figures

    @property
    def has_dijets(self) -> bool:
        dijets, samples = self.settings.plots.dijet_mass, self.settings.samples
        if dijets is None or "dijet_mass" not in self.hists:
            return False
        if self.sample is not None:
            return self.sample in dijets.samples
        return any(name in samples and not samples[name].held_out for name in dijets.samples)

    def dijet_mass(self) -> Tree:
        return {
            view: self.summary("dijet_mass", self.counts("dijet_mass_fine", view=view), view)
            for view in (TRUTH, *self.reconstructions)
        }

    def reliability(self) -> Tree:
        edges = self.hists["reliability"].axes["weight_of_candidate"].edges
        counts, claimed = self.counts("reliability"), self.counts("reliability_weight")
        return reliability(counts[1:-1], claimed[1:-1], edges)

    @staticmethod
    def _bins(edges: tuple[float, ...], truth: Sums, candidates: Sums) -> list[Tree]:
        """Return efficiency and fake rate per bin from counts [bins with flow, outcomes, 2]."""
        return [
            {
                "low": edges[i],
                "high": edges[i + 1],
                "efficiency": proportion(truth[i + 1, 2], truth[i + 1].sum(axis=0)),
                "fake_rate": proportion(candidates[i + 1, 0], candidates[i + 1].sum(axis=0)),
            }
            for i in range(len(edges) - 1)
        ]
