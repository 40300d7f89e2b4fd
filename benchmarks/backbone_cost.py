"""Cost of the backbones against the number of elements, and their loss on the same events.

    python benchmarks/backbone_cost.py [--lengths 128 512 2048 8192 32768] [--precision fp32]
        [--threads 1] [--memory-gb 8]
    python benchmarks/backbone_cost.py --train results/clic/shards/manifest.json [--steps 300]

Without ``--train``: the forward and backward pass of a network of the default size with each
backbone, on random elements spread evenly in eta and phi, about 8192 at a time (one event where it
is longer): seconds and peak memory per 1000 elements. Each point runs in a process of its own; its
time is the best of the passes that fit into ``--seconds``, at least two; its memory is how far the
process grew beyond a pass over 64 elements (on a GPU: what torch allocated). Full attention is left
out where the scores and distances that it stores would take more than ``--memory-gb``.

With ``--train``: the same training on the shards of a manifest for every backbone, and each
validation loss against that of full attention. Last line: one JSON object.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from particleforge.config.model import ModelConfig
from particleforge.config.settings import TrainSettings
from particleforge.config.training import TrainingConfig
from particleforge.model.backbones import BACKBONES
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.tables.schema import ELEMENT_TYPES, REQUIRED_FEATURES
from particleforge.training.distributed import Workers
from particleforge.training.spec import TrainingSpec
from particleforge.training.trainer import Trainer

ELEMENTS = 8192
# bytes of full attention per pair of elements and head: mask, its copy, scores and their gradient,
# distances
STORED_PER_PAIR = 20


def random_network(backbone: str) -> ParticleFlowNetwork:
    """Return a network of the default size over elements with only the features models need."""
    features = {
        name: [{"name": f, "transform": "none", "unit": ""} for f in REQUIRED_FEATURES[name]]
        for name in ELEMENT_TYPES
    }
    moments = {
        name: {"mean": [0.0] * len(listed), "std": [1.0] * len(listed)}
        for name, listed in features.items()
    }
    classes: list[dict[str, Any]] = [
        {"name": "none"},
        *({"name": str(i), "pdg": i, "charged": i < 3, "mass_gev": 0.0} for i in range(5)),
    ]
    torch.manual_seed(0)
    return ParticleFlowNetwork(
        ModelConfig(backbone=backbone), ModelInputs(features, moments, classes)
    )


def random_events(
    network: ParticleFlowNetwork, n_events: int, n: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return features and types of events of ``n`` elements, even in eta (-3 to 3) and phi."""
    generator = torch.Generator().manual_seed(n)
    element_type = torch.randint(1, 3, (n_events, n), generator=generator)
    features = torch.rand(n_events, n, network.inputs.n_features, generator=generator)
    eta = 6 * torch.rand(n_events, n, generator=generator) - 3
    phi = 6.2832 * torch.rand(n_events, n, generator=generator)
    position = torch.stack((eta, phi.sin(), phi.cos()), -1)
    return features.scatter(-1, network.position_columns[element_type], position), element_type


def measure(
    backbone: str, n: int, precision: str, device: torch.device, seconds: float
) -> dict[str, float]:
    """Return seconds and peak memory in MB per 1000 elements of a forward and backward pass."""
    network = random_network(backbone)
    n_events = max(1, ELEMENTS // n)
    events = {size: random_events(network, count, size) for size, count in ((64, 1), (n, n_events))}
    network.to(device)

    def one_pass(size: int) -> float:
        batch = [tensor.to(device) for tensor in events[size]]
        _wait(device)
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            outputs = network(*batch)
        sum(output.float().square().sum() for output in outputs).backward()
        _wait(device)
        return time.perf_counter() - start

    one_pass(64)
    before, end = _peak_bytes(device), time.perf_counter() + seconds
    times = [one_pass(n), one_pass(n)]
    memory = _peak_bytes(device) - before
    while time.perf_counter() < end:
        times.append(one_pass(n))
    thousands = n * n_events / 1000
    return {"s_per_1k": min(times) / thousands, "mb_per_1k": memory / 1e6 / thousands}


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize()


def _peak_bytes(device: torch.device) -> int:
    """Return the most memory used so far: the process's on CPUs (Linux: kB), else the tensors'."""
    if device.type == "cpu":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(torch.accelerator.max_memory_allocated())


def costs(options: argparse.Namespace) -> dict[str, Any]:
    """Print the table of all backbones and lengths and return its values."""
    own = [
        "--precision",
        options.precision,
        "--threads",
        str(options.threads),
        "--device",
        options.device,
    ]
    own += ["--seconds", str(options.seconds)]
    heads = ModelConfig().n_heads
    found: dict[str, dict[int, dict[str, float]]] = {name: {} for name in BACKBONES}
    print(f"{'backbone':20} {'elements':>8} {'ms / 1k':>10} {'MB / 1k':>10}")
    for backbone in BACKBONES:
        for n in options.lengths:
            if (
                backbone == "attention"
                and max(n, ELEMENTS) * n * heads * STORED_PER_PAIR > options.memory_gb * 1e9
            ):
                print(f"{backbone:20} {n:8d}   left out: more than {options.memory_gb:g} GB")
                continue
            command = [sys.executable, __file__, "--point", backbone, str(n), *own]
            point = json.loads(
                subprocess.run(command, capture_output=True, text=True, check=True).stdout
            )
            found[backbone][n] = point
            print(
                f"{backbone:20} {n:8d} {1e3 * point['s_per_1k']:10.1f} {point['mb_per_1k']:10.1f}",
                flush=True,
            )
    return {
        "precision": options.precision,
        "device": options.device,
        "threads": options.threads,
        "costs": found,
    }


def losses(manifest: Path, steps: int) -> dict[str, Any]:
    """Train every backbone on the same batches; print and return the validation losses."""
    inputs = ModelInputs.from_manifest(manifest)
    training = TrainingConfig(
        max_steps=steps,
        valid_every_steps=steps,
        checkpoint_every_steps=steps,
        warmup_steps=min(100, steps // 4),
    )
    found: dict[str, dict[str, float]] = {}
    print(f"{'backbone':20} {'parameters':>10} {'loss':>8} {'/ full':>8} {'s':>8}")
    for backbone in BACKBONES:
        settings = TrainSettings(seed=1, model=ModelConfig(backbone=backbone), training=training)
        with tempfile.TemporaryDirectory() as folder:
            spec = TrainingSpec(settings, manifest, Path(folder), until_step=steps)
            trainer = Trainer(spec, Workers(0, 1, torch.device("cpu")), inputs, lambda: False)
            start = time.perf_counter()
            status, reason = trainer.run()
        if status != "complete":
            sys.exit(f"{backbone}: {status}: {reason}")
        loss = trainer.valid_curve[-1][1]
        found[backbone] = {"valid_loss": loss, "seconds": time.perf_counter() - start}
        parameters = sum(p.numel() for p in trainer.network.parameters())
        ratio = loss / found["attention"]["valid_loss"]
        print(
            f"{backbone:20} {parameters:10d} {loss:8.4f} {ratio:8.3f}"
            f" {found[backbone]['seconds']:8.1f}",
            flush=True,
        )
    return {"steps": steps, "losses": found}


def main() -> None:
    """Measure one point, all of them, or train."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", nargs="+", type=int, default=[128, 512, 2048, 8192, 32768])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--memory-gb", type=float, default=8.0)
    parser.add_argument("--train", type=Path, metavar="MANIFEST")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--point", nargs=2, metavar=("BACKBONE", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.point:
        name, n = options.point
        found: dict[str, Any] = measure(
            name, int(n), options.precision, torch.device(options.device), options.seconds
        )
    elif options.train:
        found = losses(options.train, options.steps)
    else:
        found = costs(options)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
