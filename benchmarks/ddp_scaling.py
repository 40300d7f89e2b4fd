"""Scaling of DDP: measured on one and two ranks, modelled from measured terms beyond.

The ranks are of this machine.

    python benchmarks/ddp_scaling.py [--width 256] [--layers 4] [--budget 2048] [--network-gbit 200]
        [--network-latency-us 5]

Measured, with one core per rank and real trainings (``launch.run_training``) on random events of
realistic lengths:

* steps of one rank at three batch sizes, and of two ranks at the same global batch (strong scaling)
  and at twice that (weak);
* gloo's all-reduce between two processes against the size of the message;
* loading: seconds per event of the split to decode, which every rank pays, and to copy, which ranks
  share.

Modelled, and labelled so: a step of n ranks takes

    compute(elements per rank) + exposed(n) + 2 all-reduces of the step's sums,
    but at least the time of loading

* compute: a line through the measured steps of one rank;
* an all-reduce of S bytes in a ring (Patarasuk and Yuan, J. Parallel Distrib. Comput. 69 (2009)
  117) takes 2 (n - 1) (latency + S / n / bandwidth);
* exposed: DDP (Li et al., arXiv:2006.15704) sends buckets, the first of 1 MiB, then of 25 MiB,
  while the backward pass goes on; it takes two thirds of the compute. What does not fit behind it
  is exposed, and the last bucket always is;
* loading runs in a thread beside the step, on a core that is taken to be free.

Latency and bandwidth are those of gloo here, or a network's as the options state it. What the model
leaves out: stragglers, a network shared by ring neighbours or with others, cores that the loader's
thread takes from the step. Its figure for two ranks stands beside the measured one. Prints tables;
the last line is one JSON object of figures.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy, torch and pyarrow start their threads

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
import torch.distributed as dist
from loader_speed import batches_of_epoch, cpu_seconds, load, make_loader, write_shards

from particleforge.config.settings import TrainSettings
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.training.distributed import joined_workers
from particleforge.training.launch import TrainingSpec, run_training

MIB = 2**20
BUCKETS = (1 * MIB, 25 * MIB)  # DistributedDataParallel's first bucket and its bucket_cap_mb
SMALL = 64  # bytes of the sums that ranks agree on, twice a step
ROW_STEPS = 4  # steps per row of the metrics; the first row is warm-up
MANY_RANKS = (2, 4, 8, 16, 32, 64, 128, 256)


@dataclass(frozen=True)
class Link:
    """Ranks' connection in a ring."""

    latency_s: float
    bytes_per_s: float

    def all_reduce(self, ranks: int, n_bytes: float) -> float:
        """Return the seconds of an all-reduce."""
        return (
            2 * (ranks - 1) * (self.latency_s + n_bytes / ranks / self.bytes_per_s)
            if ranks > 1
            else 0.0
        )


@dataclass(frozen=True)
class Terms:
    """What one step is made of, measured."""

    step_s: float  # per step, whatever the batch
    element_s: float  # per element of a rank's part of a batch
    gradient_bytes: float
    decode_s: float  # per event of the global batch
    copy_s: float  # per event of a rank's part
    elements_per_event: float

    def loading(self, ranks: int, elements: float) -> float:
        """Return the seconds that a rank's loader needs for a step.

        Each rank has so many elements in it.
        """
        events = elements / self.elements_per_event
        return ranks * events * self.decode_s + events * self.copy_s

    def step(self, ranks: int, elements: float, link: Link) -> float:
        """Return the seconds of a step in which each rank has so many elements."""
        sizes: list[float] = []
        left = self.gradient_bytes
        while left > 0:
            sizes.append(min(left, BUCKETS[bool(sizes)]))
            left -= sizes[-1]
        times = [link.all_reduce(ranks, size) for size in sizes]
        backward = 2 / 3 * self.element_s * elements
        exposed = max(times[-1], sum(times) - backward)
        return max(
            self.step_s + self.element_s * elements + exposed + 2 * link.all_reduce(ranks, SMALL),
            self.loading(ranks, elements),
        )


def settings_of(options: argparse.Namespace, ranks: int, budget: int) -> TrainSettings:
    """Return the settings of a training without validations on the way."""
    steps = ROW_STEPS * (1 + options.rows)
    training = {
        "ranks": ranks,
        "max_steps": steps,
        "valid_every_steps": steps,
        "checkpoint_every_steps": steps,
    }
    training |= {
        "log_every_steps": ROW_STEPS,
        "elements_per_batch": budget,
        "device": "cpu",
        "warmup_steps": 1,
    }
    return TrainSettings(
        seed=1, model={"width": options.width, "n_layers": options.layers}, training=training
    )


def measured_training(
    manifest: Path, options: argparse.Namespace, ranks: int, budget: int
) -> dict[str, float]:
    """Train, one core per rank, and return medians of the rows and the seconds of a step.

    The first row does not count.
    """
    settings = settings_of(options, ranks, budget)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["OMP_NUM_THREADS"] = str(ranks)  # run_training divides it among the ranks
        result = run_training(
            TrainingSpec(settings, manifest, Path(folder) / "work", settings.training.length),
            ranks,
        )
        if result.status != "complete" or result.metrics is None:
            raise SystemExit(f"training ended as {result.status}: {result.reason}")
        rows = pq.read_table(result.metrics).to_pylist()
    found: dict[str, float] = {}
    for name in (
        "elements_per_s",
        "events_per_s",
        "loading_share",
        "communication_share",
        "padding_efficiency",
    ):
        found[name] = float(
            np.median(
                [
                    r["value"]
                    for r in rows
                    if r["name"] == name and r["split"] == "train" and r["step"] > ROW_STEPS
                ]
            )
        )
    loader = make_loader(manifest, budget)
    elements = load(loader.stream(0, 0), options.rows * ROW_STEPS)["elements"] / (
        options.rows * ROW_STEPS
    )
    return found | {"step_s": elements / found["elements_per_s"], "elements": elements}


def measured_loading(manifest: Path, budget: int) -> tuple[float, float, float]:
    """Return the seconds per event to decode and to copy, and the elements per event."""
    seconds = {}
    for ranks in (1, 8):
        loader = make_loader(manifest, budget, ranks)
        stream = loader.stream(0, 0)
        n_batches = batches_of_epoch(loader, 0)
        load(stream, n_batches)
        seconds[ranks] = min(
            cpu_seconds(load, stream, batches_of_epoch(loader, epoch)) for epoch in (1, 2, 3)
        )
    lengths = np.concatenate(make_loader(manifest, budget).lengths)
    copy = max(0.0, (seconds[1] - seconds[8]) / (1 - 1 / 8))
    return (seconds[1] - copy) / len(lengths), copy / len(lengths), float(lengths.mean())


def print_all_reduce() -> None:
    """Run by two processes: rank 0 prints [bytes, median seconds] of messages of several sizes."""
    found = []
    with joined_workers("cpu") as workers:
        for size in (64, 1024, 16 * 1024, 256 * 1024, MIB, 4 * MIB, 16 * MIB):
            values = torch.ones(size // 4)
            seconds = []
            for _ in range(12):
                dist.barrier()
                start = time.perf_counter()
                dist.all_reduce(values)
                seconds.append(time.perf_counter() - start)
                values.fill_(1.0)
            found.append([size, float(np.median(seconds[2:]))])
        if workers.is_main:
            print(json.dumps(found))


def measured_all_reduce() -> list[tuple[int, float]]:
    """Return bytes and seconds of gloo's all-reduce between two processes of this machine."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",
        "--nproc-per-node=2",
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [*command, __file__, "--all-reduce"],
        check=True,
        capture_output=True,
        text=True,
        env=environment,
    )
    return [tuple(pair) for pair in json.loads(done.stdout.strip().splitlines()[-1])]


def fitted_link(points: list[tuple[int, float]]) -> Link:
    """Return the ring's latency and bandwidth from times of two ranks.

    A time is 2 latency + S / bandwidth, fitted by least relative squares.
    """
    sizes, times = np.array(points, dtype=np.float64).T
    latency, per_byte = np.linalg.lstsq(
        np.stack([np.ones_like(sizes), sizes], 1) / times[:, None], np.ones_like(times), rcond=None
    )[0]
    return Link(max(0.0, latency / 2), 1 / per_byte)


def print_modelled(
    terms: Terms, links: dict[str, Link], weak: float, strong: float
) -> dict[str, Any]:
    """Print modelled efficiencies and return them.

    ``weak`` elements per rank, ``strong`` elements of the global batch.
    """
    found: dict[str, Any] = {}
    alone = terms.step(1, weak, Link(0, 1))
    alone_strong = terms.step(1, strong, Link(0, 1))
    for name, link in links.items():
        print(
            f"\nMODELLED: {name}, {1e6 * link.latency_s:.1f} us and {link.bytes_per_s / 1e9:.2f}"
            " GB/s per ring neighbour"
        )
        print(
            f"{'ranks':>6}{'weak: step s':>14}{'efficiency':>12}{'loading s':>11}"
            f"{'strong: step s':>16}{'efficiency':>12}"
        )
        for ranks in MANY_RANKS:
            step = terms.step(ranks, weak, link)
            step_strong = terms.step(ranks, strong / ranks, link)
            values = {"weak": alone / step, "strong": alone_strong / ranks / step_strong}
            found.setdefault(name, {})[str(ranks)] = {
                key: round(value, 3) for key, value in values.items()
            }
            loading = terms.loading(ranks, weak)
            print(
                f"{ranks:>6}{step:>14.3f}{values['weak']:>12.3f}{loading:>11.4f}{step_strong:>16.3f}{values['strong']:>12.3f}"
            )
    return found


def arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--detector", default="clic")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--budget", type=int, default=2048, help="elements per rank and step")
    parser.add_argument(
        "--strong-elements",
        type=int,
        default=131_072,
        help="elements of the global batch of the modelled strong scaling",
    )
    parser.add_argument(
        "--rows", type=int, default=4, help=f"measured rows of {ROW_STEPS} steps each"
    )
    parser.add_argument("--events", type=int, default=4000)
    parser.add_argument("--network-gbit", type=float, default=200.0)
    parser.add_argument("--network-latency-us", type=float, default=5.0)
    parser.add_argument("--all-reduce", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


@dataclass(frozen=True)
class Measured:
    """Trainings by budget, on one rank and on two; and what a step is made of without its link."""

    n_parameters: int
    alone: dict[int, dict[str, float]]
    two: dict[int, dict[str, float]]
    terms: Terms


def measured(options: argparse.Namespace) -> Measured:
    """Train and load on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = write_shards(Path(folder), options.detector, train=options.events, valid=20)
        network = ParticleFlowNetwork(
            settings_of(options, 1, options.budget).model, ModelInputs.from_manifest(manifest)
        )
        n_parameters = sum(parameter.numel() for parameter in network.parameters())
        small, middle, large = options.budget // 2, options.budget, 2 * options.budget
        alone = {
            budget: measured_training(manifest, options, 1, budget)
            for budget in (small, middle, large)
        }
        two = {
            budget: measured_training(manifest, options, 2, budget) for budget in (middle, large)
        }
        loading = measured_loading(manifest, options.budget)
    element_s, step_s = np.polyfit(
        [run["elements"] for run in alone.values()], [run["step_s"] for run in alone.values()], 1
    )
    terms = Terms(max(0.0, float(step_s)), float(element_s), 4 * n_parameters, *loading)
    return Measured(n_parameters, alone, two, terms)


def print_measured(found: Measured, budget: int, link: Link) -> dict[str, float]:
    """Print the trainings; return the efficiency of two ranks by kind of scaling."""
    print(
        f"\nMEASURED: network of {found.n_parameters / 1e6:.2f} M parameters, fp32, one core per"
        " rank"
    )
    print(
        f"{'ranks':>6}{'budget':>8}{'step s':>9}{'events/s':>10}{'loading':>9}{'communication':>15}"
        f"{'efficiency':>12}{'modelled':>10}"
    )
    efficiency = {}
    for ranks, runs in ((1, found.alone), (2, found.two)):
        for elements, run in runs.items():
            line = f"{ranks:>6}{elements:>8}{run['step_s']:>9.3f}{run['events_per_s']:>10.1f}"
            line += f"{run['loading_share']:>9.1%}{run['communication_share']:>15.1%}"
            if ranks == 2:
                kind = "strong" if elements == budget else "weak"
                alone = found.alone[budget]["elements_per_s"]
                efficiency[kind] = run["elements_per_s"] / 2 / alone
                step = found.terms.step(2, run["elements"] / 2, link)
                line += f"{efficiency[kind]:>12.3f}{run['elements'] / step / 2 / alone:>10.3f}"
                line += f"  {kind}"
            print(line)
    return efficiency


def main() -> None:
    """Measure, model and print."""
    options = arguments()
    if options.all_reduce:
        print_all_reduce()
        return
    torch.set_num_threads(1)
    found, points = measured(options), measured_all_reduce()
    terms, link = found.terms, fitted_link(points)
    efficiency = print_measured(found, options.budget, link)
    print(f"\nMEASURED: {'gloo all-reduce, 2 ranks, bytes':>34}{'ms':>10}{'GB/s':>8}")
    for size, seconds in points:
        print(f"{size:>44}{1e3 * seconds:>10.3f}{size / seconds / 1e9:>8.2f}")
    print(
        f"\nMEASURED: loading takes {1e6 * terms.decode_s:.1f} us per event of the global batch and"
        f" {1e6 * terms.copy_s:.1f} us per event of a rank"
    )
    links = {"gloo between processes here": link}
    links[f"a network of {options.network_gbit:g} Gbit/s"] = Link(
        options.network_latency_us * 1e-6, options.network_gbit / 8 * 1e9
    )
    one = found.alone[options.budget]
    modelled = print_modelled(terms, links, one["elements"], options.strong_elements)
    figures = {
        "measured": {
            "events_per_s_1_rank": round(one["events_per_s"], 2),
            "events_per_s_2_ranks_strong": round(found.two[options.budget]["events_per_s"], 2),
            "events_per_s_2_ranks_weak": round(found.two[2 * options.budget]["events_per_s"], 2),
            "efficiency_2_ranks_strong": round(efficiency["strong"], 3),
            "efficiency_2_ranks_weak": round(efficiency["weak"], 3),
            "gloo_latency_us": round(1e6 * link.latency_s, 1),
            "gloo_gb_per_s": round(link.bytes_per_s / 1e9, 3),
            "decode_us_per_event": round(1e6 * terms.decode_s, 2),
            "copy_us_per_event": round(1e6 * terms.copy_s, 2),
        },
        "modelled_efficiency": modelled,
        "parameters": found.n_parameters,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
