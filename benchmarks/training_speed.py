"""Speed of training steps against jpata/particleflow (its CLIC model), at equal parameters.

Both see events of the same lengths, in one run.

    python benchmarks/training_speed.py [--incumbent FOLDER] [--rounds 5] [--profile] [--compile]

Writes shards of random events with the lengths of tt events in CLIC (mean 130 elements, RMS 54), as
``loader_speed.py`` does. Then, in turns: steps of this package's own ``Trainer`` (loading, loss,
clipping and optimiser included), steps of the other model with its own loss and AdamW on batches of
64 events padded to the longest, as that package forms them, and square matrix products. Both in
float32 and in bfloat16; the better of each counts. Ratios are taken round by round, and their
median is quoted, since machines drift.

``FOLDER`` holds particleflow 3.1.0 (``pip install --no-deps --target FOLDER particleflow==3.1.0``);
without it, pip is asked to put it into a temporary folder.

``gemm_fraction`` is the rate of useful matrix FLOPs over that of the matrix products in the same
round: FLOPs of the forward and backward pass as torch counts them, times the share of elements that
are not padding. Last line: one JSON object.

``--profile`` prints where the time of steps goes, by operator; ``--compile`` also times
``training.compile`` and its warm-up.
"""

import argparse
import importlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from loader_speed import CONFIG, write_shards
from torch.utils.flop_counter import FlopCounterMode

from particleforge.config.load import load_detector, load_run, merge, validate
from particleforge.config.settings import TrainSettings
from particleforge.model.inputs import ModelInputs
from particleforge.training.distributed import Workers
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

PACKAGE = "particleflow==3.1.0"
MODEL = {"width": 384, "n_layers": 2, "n_heads": 6, "feedforward_factor": 3.0}
ELEMENTS_PER_BATCH, EVENTS_PER_BATCH = 8192, 64  # 63 events of 130 elements
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
GEMM_SIZE = 2048


@dataclass
class Timing:
    """Steps that were made, how long they took and what was in them."""

    seconds: float = 0.0
    events: int = 0
    elements: int = 0
    padded: int = 0

    @property
    def events_per_s(self) -> float:
        """Return events per second of wall time."""
        return self.events / self.seconds


class Ours:
    """This package's trainer on one process."""

    def __init__(
        self, manifest: Path, folder: Path, precision: str, *, compile_network: bool = False
    ) -> None:
        values = {
            "model": MODEL,
            "training": {
                "elements_per_batch": ELEMENTS_PER_BATCH,
                "precision": precision,
                "compile": compile_network,
            },
        }
        defaults = TrainSettings.of(load_run(CONFIG), load_detector(CONFIG, "clic")).plain()
        settings = validate(TrainSettings, merge(defaults, values), "benchmark")
        spec = TrainingSpec(settings, manifest, folder, until_step=1)
        workers = Workers(0, 1, torch.device("cpu"))
        self.trainer = Trainer(spec, workers, ModelInputs.from_manifest(manifest), lambda: False)
        if compile_network:
            self.trainer.network.compile(dynamic=True)
        self.network = self.trainer.parallelism.wrap(self.trainer.network)
        self.parameters = sum(p.numel() for p in self.trainer.network.parameters())
        self.stream = self.trainer.train_loader.stream(0, 0)

    def steps(self, n_steps: int) -> Timing:
        """Make steps and time them, loading included."""
        timing, start = Timing(), time.perf_counter()
        for _ in range(n_steps):
            _, _, batches, n_events = next(self.stream)
            self.trainer._train_step(self.network, batches, n_events)
            self.trainer.step += 1
            timing.events += n_events
            timing.padded += sum(batch.element_type.numel() for batch in batches)
            timing.elements += sum(
                int(torch.count_nonzero(batch.element_type)) for batch in batches
            )
        timing.seconds = time.perf_counter() - start
        return timing

    def flops_per_padded_element(self) -> float:
        """Return matrix FLOPs of a step, forward and backward, per element of the padded batch."""
        counter = FlopCounterMode(display=False)
        with counter:
            timing = self.steps(1)
        return float(counter.get_total_flops() / timing.padded)


class Incumbent:
    """The other package's CLIC model with its own loss, on random events."""

    def __init__(self, folder: Path, lengths: np.ndarray, dtype: torch.dtype) -> None:
        sys.path.insert(0, str(folder))
        for name, members in (
            ("comet_ml", ("OfflineExperiment", "Experiment")),
            ("tensorflow_datasets", ()),
        ):
            # the package imports these, the model does not use them
            stand_in = types.ModuleType(name)
            for member in members:
                setattr(stand_in, member, object)
            sys.modules.setdefault(name, stand_in)
        config = importlib.import_module("mlpf.conf").MLPFConfig
        settings = {"num_convs": 3, "head_dim": 16, "num_heads": 16}
        model = {"type": "attention", "input_encoding": "split", "attention": settings}
        content = {
            "dataset": "clic",
            "data_dir": ".",
            "conv_type": "attention",
            "lr": 5e-4,
            "model": model,
        }
        torch.manual_seed(0)
        self.model = (
            importlib.import_module("mlpf.model.mlpf").MLPF(config.model_validate(content)).train()
        )
        self.loss = importlib.import_module("mlpf.model.losses").mlpf_loss
        self.unpack = importlib.import_module("mlpf.model.utils")
        self.optimiser = torch.optim.AdamW(self.model.parameters(), lr=5e-4, weight_decay=0.01)
        self.parameters = sum(p.numel() for p in self.model.parameters() if p.requires_grad)
        self.dtype, self.batches = dtype, self._batches(lengths)

    def _batches(self, lengths: np.ndarray) -> Iterator[types.SimpleNamespace]:
        """Yield random events in batches of ``EVENTS_PER_BATCH``, padded to the longest.

        Events keep their order.
        """
        generator = torch.Generator().manual_seed(0)
        while True:
            for first in range(0, len(lengths) - EVENTS_PER_BATCH + 1, EVENTS_PER_BATCH):
                own = torch.from_numpy(lengths[first : first + EVENTS_PER_BATCH])
                real = torch.arange(int(own.max())) < own[:, None]
                features = torch.randn(*real.shape, self.model.input_dim, generator=generator)
                features[..., 0] = torch.where(
                    torch.rand(real.shape, generator=generator) < 0.45, 1.0, 2.0
                )
                features[..., 1] = features[..., 1].exp()
                features[..., 5] = features[..., 1] * 1.5
                target = torch.randn(*real.shape, 14, generator=generator) * 0.3
                target[..., 0] = torch.randint(0, 6, real.shape, generator=generator)
                target[..., 1] = torch.randint(-1, 2, real.shape, generator=generator)
                features[~real], target[~real] = 0.0, 0.0
                yield types.SimpleNamespace(X=features, ytarget=target, mask=real)

    def steps(self, n_steps: int) -> Timing:
        """Make steps and time them; making the random events does not count."""
        timing = Timing()
        for _ in range(n_steps):
            batch = next(self.batches)
            start = time.perf_counter()
            with (
                torch.autocast("cpu", torch.bfloat16)
                if self.dtype is torch.bfloat16
                else nullcontext()
            ):
                outputs = self.model(batch.X, batch.mask)
            found = self.unpack.unpack_predictions([output.float() for output in outputs])
            loss, *_ = self.loss(self.unpack.unpack_target(batch.ytarget, self.model), found, batch)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            timing.seconds += time.perf_counter() - start
            timing.events += len(batch.X)
            timing.elements += int(batch.mask.sum())
            timing.padded += batch.mask.numel()
        return timing


def gemm_flops_per_s(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Return the rate of square matrix products, the best of those that fit into ``seconds``."""
    a, b = (torch.randn(GEMM_SIZE, GEMM_SIZE).to(dtype) for _ in range(2))
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - start)
    return float(2 * GEMM_SIZE**3 / best)


def fetched(folder: Path) -> Path | None:
    """Let pip put the other package into ``folder``; None, with a line of why, if it cannot."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(folder),
        PACKAGE,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(
            f"{PACKAGE} is not to be had, so there is no comparison:"
            f" {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
        return None
    return folder


def profiled(ours: Ours) -> str:
    """Return the table of operators over four steps."""
    with torch.profiler.profile() as profile:
        ours.steps(4)
    return str(
        profile.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=16, max_name_column_width=48
        )
    )


def compiled(
    manifest: Path, folder: Path, plain: Callable[[int], Timing], precision: str
) -> dict[str, Any]:
    """Return the compiled network's speed against the plain one, and its first steps' time."""
    ours = Ours(manifest, folder, precision, compile_network=True)
    start = time.perf_counter()
    ours.steps(4)
    warm_up = time.perf_counter() - start
    ratios = [ours.steps(6).events_per_s / plain(6).events_per_s for _ in range(3)]
    return {
        "compile_speedup": round(statistics.median(ratios), 3),
        "compile_warm_up_s": round(warm_up, 1),
    }


def main() -> None:
    """Measure in rounds and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--incumbent", type=Path, help="folder with particleflow")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # a trainer wants both
        manifest = write_shards(folder / "shards", "clic", train=8000, valid=100)
        package = arguments.incumbent or fetched(folder / "package")
        ours = {dtype: Ours(manifest, folder, dtype) for dtype in DTYPES}
        lengths = np.concatenate(ours["bf16"].trainer.train_loader.lengths)
        theirs = (
            {dtype: Incumbent(package, lengths, kind) for dtype, kind in DTYPES.items()}
            if package
            else {}
        )
        models = {("particleforge", dtype): one for dtype, one in ours.items()} | {
            ("particleflow", dtype): one for dtype, one in theirs.items()
        }
        for model in models.values():
            model.steps(2)
        flops = ours["bf16"].flops_per_padded_element()
        rounds: list[dict[tuple[str, str], Any]] = []
        for _ in range(arguments.rounds):
            timings: dict[tuple[str, str], Any] = {
                ("gemm", dtype): gemm_flops_per_s(kind) for dtype, kind in DTYPES.items()
            }
            timings |= {
                key: model.steps(8 if key[0] == "particleforge" else 2)
                for key, model in models.items()
            }
            timings |= {
                ("gemm", dtype): max(timings["gemm", dtype], gemm_flops_per_s(kind))
                for dtype, kind in DTYPES.items()
            }
            rounds.append(timings)
        result = summary(
            rounds, flops, {name: model.parameters for (name, _), model in models.items()}
        )
        if arguments.profile:
            print(profiled(ours[result["dtype"]]))
        if arguments.compile:
            result |= compiled(manifest, folder, ours[result["dtype"]].steps, result["dtype"])
    print(json.dumps(result))


def print_table(
    rounds: list[dict[tuple[str, str], Any]],
    rates: dict[tuple[str, str], float],
    fractions: dict[str, float],
    parameters: dict[str, int],
) -> None:
    """Print what was timed, a line per network and type of numbers."""
    print(
        f"{'':14s} {'':5s} {'parameters':>10s} {'events/s':>9s} {'real/padded':>11s}"
        f" {'of GEMM peak':>12s}"
    )
    for name, dtype in rates:
        last: Timing = rounds[-1][name, dtype]
        fraction = f"{fractions[dtype]:12.2f}" if name == "particleforge" else ""
        print(
            f"{name:14s} {dtype:5s} {parameters[name]:10d} {rates[name, dtype]:9.1f}"
            f" {last.elements / last.padded:11.3f} {fraction}"
        )
    for dtype in DTYPES:
        print(
            f"matrix products of {GEMM_SIZE}, {dtype}:"
            f" {statistics.median([one['gemm', dtype] for one in rounds]) / 1e9:.0f} GFLOP/s"
        )


def summary(
    rounds: list[dict[tuple[str, str], Any]], flops: float, parameters: dict[str, int]
) -> dict[str, Any]:
    """Print the table of all that was timed; return what the last line says."""

    def median(values: list[float]) -> float:
        return statistics.median(values)

    rates = {
        key: median([one[key].events_per_s for one in rounds])
        for key in rounds[0]
        if key[0] != "gemm"
    }
    fractions = {
        dtype: median(
            [
                one["particleforge", dtype].elements
                * flops
                / one["particleforge", dtype].seconds
                / one["gemm", dtype]
                for one in rounds
            ]
        )
        for dtype in DTYPES
    }
    print_table(rounds, rates, fractions, parameters)
    best = {
        name: max((rates[n, dtype], dtype) for n, dtype in rates if n == name)[1]
        for name in parameters
    }
    own = best["particleforge"]
    speedup = None
    if "particleflow" in best:
        other = best["particleflow"]
        speedup = median(
            [
                one["particleforge", own].events_per_s / one["particleflow", other].events_per_s
                for one in rounds
            ]
        )
    elements, padded = (
        sum(getattr(one["particleforge", own], name) for one in rounds)
        for name in ("elements", "padded")
    )
    return {
        "speedup_vs_incumbent": round(speedup, 2) if speedup else None,
        "events_per_s": round(rates["particleforge", own], 1),
        "gemm_fraction": round(fractions[own], 3),
        "padding_efficiency": round(elements / padded, 3),
        "parameters": parameters["particleforge"],
        "dtype": own,
        "incumbent_events_per_s": (
            round(rates["particleflow", best["particleflow"]], 2) if speedup else None
        ),
        "incumbent_parameters": parameters.get("particleflow"),
    }


if __name__ == "__main__":
    main()
