"""What each part of the network and its training is worth: one change at a time.

    python benchmarks/ablation.py MANIFEST --work DIR [--steps N] [--seeds N] [--only CHANGE...]

MANIFEST is that of training shards of the detector. Every change is trained with the same steps,
and so the same events, from as many seeds as are asked for; seed by seed, so that all changes are
equally far whenever it ends. Run it again to go on: what is in DIR is not made again. All models
then reconstruct the same fresh events, which no training saw, as ``physics.py`` judges them.

The validation loss that trainings are compared by must order models as jets do: of each of its
terms the rank correlation with the jet resolution is printed (Spearman, Am. J. Psychol. 15 (1904)
72), over all models but those whose change gives that loss another meaning.

Changes of settings are settings; changes of the network take a part out of it in the training's own
processes. Prints a table; the last line is one JSON object: figures by change.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import physics
import pyarrow.parquet as pq
import torch
from judged_events import Figures
from scipy.stats import spearmanr
from torch import Tensor

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ExportSettings, TrainSettings
from particleforge.export.onnx_model import export_onnx
from particleforge.model import loss, network, shares
from particleforge.model.curve import Geometry
from particleforge.model.loss import Batch
from particleforge.model.network import InputEncoder, ParticleFlowNetwork
from particleforge.model.surroundings import N_SURROUNDINGS
from particleforge.training import launch, worker
from particleforge.training.train import train_model
from particleforge.training.trainer import Trainer

CONFIG = Path(__file__).parents[1] / "config"
_ELEMENTS_PER_STEP = 8192  # of the demo: one rank here takes what two do there
_SHAPE = ("fraction_", "width_minor")
_N_WAVES = 5
# one over each term's mean over the first 100 steps of the network as shipped
_CALIBRATED = {
    **{"presence": 1.93, "classification": 1.40, "charge": 1.53, "momentum": 2.25},
    **{"event": 3.28, "shares": 0.586},
}
_FIGURES = (
    *("jet_resolution", "against_shipped", "visible_energy_ratio", "met_ratio"),
    "worst_bin_ratio",
)


@dataclass(frozen=True)
class Change:
    """One change: settings, and what to do to the package before a network is made.

    One that ``redefines_loss`` changes the validation loss as well, whose values then mean
    something else than other trainings'.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    apply: Callable[[], None] = lambda: None
    redefines_loss: bool = False


def put(owner: Any, name: str, value: Any) -> None:
    """Put something in the place of a part of the package, for the rest of this process."""
    patch.object(owner, name, value).start()


def _without_surroundings() -> None:
    def nothing(geometry: Geometry, _is_track: Tensor, _reach: Any) -> Tensor:
        return geometry.energy.new_zeros(*geometry.energy.shape, N_SURROUNDINGS)

    put(network, "surroundings", nothing)


def _without_pair_terms() -> None:
    original = shares._pair_basis
    put(shares, "_pair_basis", lambda distance: [torch.zeros_like(b) for b in original(distance)])


def _from_own_energy() -> None:
    """Start a cluster's momentum from its own energy, and tell the heads nothing of shares."""

    def dealt(self: Any, *inputs: Any) -> Any:
        found = forward(self, *inputs)
        own = inputs[1].energy.unsqueeze(-1) * torch.nn.functional.pad(inputs[2], (0, 1), value=1.0)
        return found._replace(received=own, told=torch.zeros_like(found.told))

    forward = shares.EnergyShares.forward
    put(shares.EnergyShares, "forward", dealt)


def _unweighted() -> None:
    put(loss, "_weights", lambda energy, where: torch.ones_like(energy) * where)


def _without_shape() -> None:
    standardise = InputEncoder.standardise
    make = ParticleFlowNetwork.__init__

    def noting(self: Any, model: Any, inputs: Any) -> None:
        make(self, model, inputs)
        unused = torch.zeros(len(inputs.element_types) + 1, inputs.n_features)
        for row, name in enumerate(inputs.element_types, start=1):
            for column, feature in enumerate(inputs.elements[name]):
                unused[row, column] = feature["name"].startswith(_SHAPE)
        self.encoder.register_buffer("unused", unused, persistent=False)

    def without(self: Any, features: Tensor, element_type: Tensor) -> Any:
        return standardise(self, features, element_type) * (1 - self.unused[element_type])

    put(ParticleFlowNetwork, "__init__", noting)
    put(InputEncoder, "standardise", without)


def _with_waves() -> None:
    """Tell the encoder sines and cosines of multiples of the position's angles as well.

    Fourier features of Tancik et al., arXiv:2006.10739, with octaves of eta and phi.
    """
    make, encode = ParticleFlowNetwork.__init__, ParticleFlowNetwork.encode

    def with_waves(self: Any, model: Any, inputs: Any) -> None:
        make(self, model, inputs)
        self.waves = torch.nn.Linear(4 * _N_WAVES, model.width, bias=False)

    def waving(self: Any, features: Tensor, seen: Any) -> Tensor:
        eta, sine, cosine = seen.geometry.position.unbind(-1)
        octaves = 2 ** torch.arange(_N_WAVES, device=eta.device)
        turns = torch.stack((eta, torch.atan2(sine, cosine)), -1).unsqueeze(-1) * octaves
        waves = torch.cat((turns.sin(), turns.cos()), -1).flatten(-2)
        embedded: Tensor = encode(self, features, seen)
        known: Tensor = self.waves(waves.to(embedded.dtype))
        return embedded + known

    put(ParticleFlowNetwork, "__init__", with_waves)
    put(ParticleFlowNetwork, "encode", waving)


def _turned() -> None:
    """Turn each training event about the beam and mirror it along the beam, at random."""
    backward = Trainer._backward

    def turned(self: Any, net: Any, batches: Any, counts: Tensor) -> Any:
        inputs = self.network.inputs
        return backward(self, net, [turn(batch, inputs) for batch in batches], counts)

    put(Trainer, "_backward", turned)


def turn(batch: Batch, inputs: Any) -> Batch:
    """Return the events turned by an angle each, and half of them mirrored."""
    angle = 2 * torch.pi * torch.rand(len(batch.features))
    sign = torch.where(torch.rand(len(batch.features)) < 0.5, -1.0, 1.0).unsqueeze(-1)
    cos, sin = angle.cos().unsqueeze(-1), angle.sin().unsqueeze(-1)
    features, p4 = batch.features.clone(), batch.target_p4.clone()
    for row, element_type in enumerate(inputs.element_types, start=1):
        names = [feature["name"] for feature in inputs.elements[element_type]]
        here = batch.element_type == row
        pairs = [("cos_phi", "sin_phi"), ("cos_phi_calo", "sin_phi_calo"), ("x", "y")]
        for one, other in pairs:
            if one in names:
                i, j = names.index(one), names.index(other)
                x, y = batch.features[..., i], batch.features[..., j]
                features[..., i] = torch.where(here, x * cos - y * sin, features[..., i])
                features[..., j] = torch.where(here, x * sin + y * cos, features[..., j])
        for name in ("eta", "eta_calo", "z", "z0"):
            if name in names:
                i = names.index(name)
                features[..., i] = torch.where(here, features[..., i] * sign, features[..., i])
    p4[..., 0] = batch.target_p4[..., 0] * cos - batch.target_p4[..., 1] * sin
    p4[..., 1] = batch.target_p4[..., 0] * sin + batch.target_p4[..., 1] * cos
    p4[..., 2] = batch.target_p4[..., 2] * sign
    return batch._replace(features=features, target_p4=p4)


CHANGES = {
    "as shipped": Change(),
    "momenta from the host's own energy": Change(apply=_from_own_energy),
    "shares not supervised": Change({"training": {"loss": {"shares": 0.0}}}),
    "no pair terms in the shares": Change(apply=_without_pair_terms),
    "no sums of neighbours": Change(apply=_without_surroundings),
    "no shape of clusters": Change(apply=_without_shape),
    "terms not weighted by sqrt(E)": Change(apply=_unweighted, redefines_loss=True),
    "weights of terms calibrated": Change({"training": {"loss": _CALIBRATED}}),
    "Fourier features of positions": Change(apply=_with_waves),
    "events turned and mirrored": Change(apply=_turned),
    "no sums over events": Change({"training": {"loss": {"event": 0.0}}}),
    "width 128": Change({"model": {"width": 128}}),
    "5 layers": Change({"model": {"n_layers": 5}}),
}


def settings_of(detector: Any, change: Change, steps: int, seed: int) -> tuple[Any, Any]:
    """Return the settings of training and export."""
    training = {
        **{"events_seen": None, "max_steps": steps, "warmup_events": None},
        **{"ranks": 1, "elements_per_batch": _ELEMENTS_PER_STEP},
        **{"valid_every_steps": 500, "checkpoint_every_steps": 500},
        **change.settings.get("training", {}),
    }
    chosen = {"preset": "demo", "seed": seed, **change.settings, "training": training}
    run = load_run(CONFIG, chosen)
    return TrainSettings.of(run, detector), ExportSettings.of(run, detector)


def train(name: str, seed: int, options: argparse.Namespace) -> None:
    """Train and export one model, unless it is there.

    For a process of its own, since what a change does to the package cannot be taken back.
    """
    folder = folder_of(options.work, name) / str(seed)
    if (folder / "model.onnx").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    detector = load_detector(CONFIG, options.detector)
    training, export = settings_of(detector, CHANGES[name], options.steps, seed)
    # the training's process is this script, so that the change is made there as well
    command = [sys.executable, str(Path(__file__).absolute()), "--worker", name]
    put(launch, "_command", lambda _ranks, _placement: command)
    train_model(
        training,
        manifest=options.manifest,
        best_settings=None,
        work_dir=folder / "work",
        model=folder / "best.pt",
        last=folder / "last.pt",
        metrics=folder / "metrics.parquet",
        tensorboard=folder / "tensorboard",
    )
    CHANGES[name].apply()
    export_onnx(
        export,
        detector=options.detector,
        checkpoint=folder / "best.pt",
        manifest=options.manifest,
        onnx=folder / "model.onnx",
        parity=folder / "parity.json",
        model_card=folder / "model_card.md",
    )
    shutil.rmtree(folder / "work")


def train_all(options: argparse.Namespace) -> None:
    """Train what is missing, as many at once as there are cores, seed by seed."""

    def one(seed: int, name: str) -> None:
        own = [*sys.argv[1:], "--only", name, "--train", str(seed)]  # the last --only counts
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, __file__, *own], check=True, env=environment)

    order = [(seed, name) for seed in range(1, 1 + options.seeds) for name in options.only]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(one, *zip(*order, strict=True)))


def judged(
    folders: dict[str, list[Path]], options: argparse.Namespace
) -> tuple[dict[str, Any], dict[str, float]]:
    """Return figures by change, of the same fresh events, and jet resolutions by model's folder."""
    detector = load_detector(CONFIG, options.detector)
    models = [folder / "model.onnx" for found in folders.values() for folder in found]
    tasks = list(physics.fresh(detector, models, options.events, 1))
    of_models = physics.judge_all(tasks, len(os.sched_getaffinity(0)))
    resolutions = [float(Figures(one, detector).all()["jet_resolution"][0]) for one in of_models]
    every, found = iter(of_models), {}
    for name, seeds in folders.items():
        print(f"\n{name}")
        found[name] = physics.summarise([next(every) for _ in seeds], detector)
    names = [str(folder) for some in folders.values() for folder in some]
    return found, dict(zip(names, resolutions, strict=True))


def against_shipped(
    resolutions: dict[str, list[float]],
) -> dict[str, tuple[float | None, float | None]]:
    """Return jets of each change over jets as shipped, the mean over seeds, with its error.

    All models see the same events, and a seed draws the same batches whatever the change; so each
    is compared with its seed as shipped. Few seeds tell a spread badly; that of all changes
    together is taken for each. None from one seed.
    """
    shipped = resolutions["as shipped"]
    ratios = {
        name: np.array(values) / shipped[: len(values)] for name, values in resolutions.items()
    }
    changed = [values for name, values in ratios.items() if name != "as shipped"]
    freedom = sum(len(values) - 1 for values in changed)
    squares = sum(float(((values - values.mean()) ** 2).sum()) for values in changed)
    if not freedom:
        return dict.fromkeys(resolutions, (None, None))
    spread = math.sqrt(squares / freedom)
    found: dict[str, tuple[float | None, float | None]] = {
        name: (float(values.mean()), spread / math.sqrt(len(values)))
        for name, values in ratios.items()
    }
    return found | {"as shipped": (1.0, 0.0)}


def correlations(resolutions: dict[str, float]) -> dict[str, float]:
    """Return of each term of the validation loss its rank correlation with the jet resolution."""
    terms = [final_terms(Path(folder) / "metrics.parquet") for folder in resolutions]
    found = {}
    for name in terms[0]:
        values = [of_model[name] for of_model in terms]
        if len(set(values)) > 1:
            found[name] = float(spearmanr(values, list(resolutions.values())).statistic)
    return found


def final_terms(metrics: Path) -> dict[str, float]:
    """Return the validation's values by name, at the step with the lowest loss, as exported."""
    rows = [row for row in pq.read_table(metrics).to_pylist() if row["split"] == "valid"]
    best = min((row for row in rows if row["name"] == "loss"), key=lambda row: row["value"])
    return {row["name"]: row["value"] for row in rows if row["step"] == best["step"]}


def folder_of(work: Path, name: str) -> Path:
    """Return the folder of a change."""
    return work / "".join(letter if letter.isalnum() else "_" for letter in name)


def main() -> None:
    """Train what is missing, judge all, print."""
    if sys.argv[1:2] == ["--worker"]:
        CHANGES[sys.argv[2]].apply()
        sys.exit(worker.main(sys.argv[3]))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR")
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--events", type=int, default=6000)
    parser.add_argument("--only", nargs="+", choices=CHANGES, default=list(CHANGES))
    parser.add_argument("--judge", action="store_true", help="judge what is there, train nothing")
    parser.add_argument("--store", type=Path, help="JSON file for all figures")
    parser.add_argument("--train", type=int, metavar="SEED", help="train one change of one seed")
    options = parser.parse_args()
    if options.train is not None:
        train(options.only[0], options.train, options)
        return
    if not options.judge:
        train_all(options)
    done = {
        name: sorted(path.parent for path in folder_of(options.work, name).glob("*/model.onnx"))
        for name in options.only
    }
    found = {name: folders for name, folders in done.items() if folders}
    seeds = [folder.name for folder in found.get("as shipped", ())]
    for name, folders in found.items():
        if (own := [folder.name for folder in folders]) != seeds[: len(own)]:
            sys.exit(f"{name}: has seeds {', '.join(own)}, as shipped {', '.join(seeds)}: no pairs")
    figures, resolutions = judged(found, options)
    for name, ratio in against_shipped(
        {name: [resolutions[str(one)] for one in found[name]] for name in found}
    ).items():
        figures[name]["against_shipped"], figures[name]["against_shipped_error"] = ratio
    print(f"\n| change | seeds | {' | '.join(_FIGURES)} |")
    print("|---|---|" + "---|" * len(_FIGURES))
    for name, row in figures.items():
        values = (
            "-" if row[f] is None else f"{row[f]:.4f} +- {row[f + '_error']:.4f}" for f in _FIGURES
        )
        print(f"| {name} | {row['n_models']} | {' | '.join(values)} |")
    print("\n| term of the validation loss | rank correlation with the jet resolution |")
    print("|---|---|")
    ranks = correlations(
        {
            str(folder): resolutions[str(folder)]
            for name, folders in found.items()
            for folder in folders
            if not CHANGES[name].redefines_loss
        }
    )
    for name, value in ranks.items():
        print(f"| {name} | {value:.2f} |")
    told = {"steps": options.steps, "jet_resolutions": list(resolutions.values())}
    text = json.dumps({**told, "changes": figures, "rank_correlations": ranks}, allow_nan=False)
    if options.store:
        options.store.write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
