"""Speed of exported models: against torch, and against jpata/particleflow at equal parameters.

    python benchmarks/inference_speed.py [--incumbent FOLDER] [--lengths 16 32 ... 2048]
        [--backbones attention ...] [--seconds 1] [--alone] [--profile LENGTH]

First: the decoder of a network of the default size with each backbone, random weights and the
shipped model's inputs, in torch and in onnxruntime, on one thread and on two: single events of each
length, and padded batches of 16 events of half the length to the whole. Both take turns, and ratios
are those of the medians of their times; p50 and p99 are of single events in onnxruntime. Its
memory is how far the process grows from opening a session to the end of its second run.

Then: a network with as many parameters as particleflow's CLIC model, and that model as
``torch.onnx`` exports it, both in onnxruntime, on single events. What that model leaves to its
caller (standardised features, decoding) is not counted for it. ``FOLDER`` is as for
``training_speed.py``; ``--alone`` leaves this part out.

``--profile`` prints where the exported model's time goes at that length, by operator, instead.

Last line: one JSON object. ``ort_over_torch`` is the lowest ratio of speeds over lengths and
batches on one thread, ``speedup_vs_incumbent`` the lowest over lengths and threads.
"""

import argparse
import contextlib
import ctypes
import io
import json
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from backbone_cost import random_events
from dataset_speed import own_peak_mb
from numpy.typing import NDArray
from training_speed import MODEL, Incumbent, fetched

from particleforge.config.model import ModelConfig
from particleforge.config.reconstruction import ExportConfig
from particleforge.export.onnx_model import convert
from particleforge.model.backbones import BACKBONES
from particleforge.model.decode import Decoder
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.saved import load_model

SHIPPED = Path(__file__).parent.parent / "examples/models/clic/best.pt"
LENGTHS = (16, 32, 64, 128, 256, 512, 1024, 2048)
INCUMBENT_LENGTHS = (128, 512, 2048)
BATCH = 16
ELEMENTS_MAX = 8192  # of a batch: longer events are timed alone
TURNS_MIN, TURNS_MAX = 5, 200
THREADS = (1, 2)
OPSET_OF_INCUMBENT = 20

Feed = dict[str, NDArray[Any]]


def decoder_of(model: ModelConfig) -> Decoder:
    """Return a network with random weights and the shipped model's inputs, with decoding."""
    shipped, _ = load_model(SHIPPED)
    torch.manual_seed(0)
    return Decoder(ParticleFlowNetwork(model, shipped.inputs)).eval()


def events_of(decoder: Decoder, lengths: Sequence[int]) -> Feed:
    """Return random events padded to the longest, even in eta (-3 to 3) and phi."""
    features, element_type = random_events(decoder.network, len(lengths), max(lengths))
    padding = torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None]
    return {
        "features": features.masked_fill(padding[..., None], 0.0).numpy(),
        "element_type": element_type.masked_fill(padding, 0).numpy(),
    }


def session_of(content: bytes, threads: int, **more: Any) -> onnxruntime.InferenceSession:
    """Return a session on so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for name, value in more.items():
        setattr(options, name, value)
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def grown_mb(content: bytes, threads: int, feed: Feed) -> float:
    """Return the most memory in MB that a session and two runs add to this process (Linux)."""
    ctypes.CDLL(None).malloc_trim(0)  # what earlier sessions left behind
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # the peak is the present
    before = own_peak_mb()
    session = session_of(content, threads)
    for _ in range(2):
        session.run(None, feed)
    return own_peak_mb() - before


def take_turns(seconds: float, *calls: Callable[[], Any]) -> list[list[float]]:
    """Return the times of each call in ms, after one that does not count."""
    times: list[list[float]] = [[] for _ in calls]
    for call in calls:
        call()
    end = time.perf_counter() + seconds
    while len(times[0]) < TURNS_MIN or (time.perf_counter() < end and len(times[0]) < TURNS_MAX):
        for call, found in zip(calls, times, strict=True):
            start = time.perf_counter()
            call()
            found.append(1e3 * (time.perf_counter() - start))
    return times


def against_torch(backbone: str, lengths: Sequence[int], seconds: float) -> list[dict[str, Any]]:
    """Print and return times of torch and onnxruntime by threads, batch and length."""
    decoder = decoder_of(ModelConfig(backbone=backbone))
    content = convert(decoder, ExportConfig().opset, 0.5, {})
    generator = np.random.default_rng(0)
    rows = []
    for threads in THREADS:
        torch.set_num_threads(threads)
        session = session_of(content, threads)
        for batch in (1, BATCH):
            for length in lengths:
                if batch > 1 and batch * length > ELEMENTS_MAX:
                    continue
                drawn = generator.integers(length // 2, length, batch - 1, endpoint=True)
                feed = events_of(decoder, [length, *drawn.tolist()])
                tensors = tuple(torch.from_numpy(value) for value in feed.values())
                with torch.inference_mode():
                    own, torchs = take_turns(
                        seconds,
                        partial(session.run, None, feed),
                        partial(decoder, *tensors),
                    )
                row: dict[str, Any] = {
                    "backbone": backbone,
                    "threads": threads,
                    "batch": batch,
                    "length": length,
                    "ort_ms": statistics.median(own),
                    "torch_ms": statistics.median(torchs),
                    "p99_ms": float(np.quantile(own, 0.99)),
                    "mb": grown_mb(content, threads, feed),
                }
                row["events_per_s"] = 1e3 * batch / row["ort_ms"]
                row["ort_over_torch"] = row["torch_ms"] / row["ort_ms"]
                rows.append(row)
                print(
                    f"{backbone:18s} {threads} threads, {batch:2d} x {length:4d}:"
                    f" onnxruntime {row['ort_ms']:8.2f} ms (p99 {row['p99_ms']:8.2f}),"
                    f" torch {row['torch_ms']:8.2f} ms, ratio {row['ort_over_torch']:.2f},"
                    f" {row['events_per_s']:.0f} events/s, {row['mb']:.0f} MB",
                    flush=True,
                )
    return rows


def exported(model: torch.nn.Module, n_features: int) -> bytes:
    """Return particleflow's network as an ONNX model with dynamic batch and elements."""
    example = (torch.rand(2, 8, n_features), torch.ones(2, 8))
    batch, elements = torch.export.Dim("batch"), torch.export.Dim("elements")
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        torch.onnx.export(
            model,
            example,
            str(path),
            dynamo=True,
            opset_version=OPSET_OF_INCUMBENT,
            input_names=["Xfeat_normed", "mask"],
            dynamic_shapes=({0: batch, 1: elements}, {0: batch, 1: elements}),
            external_data=False,
            verbose=False,
        )
        return path.read_bytes()


def against_incumbent(package: Path, seconds: float) -> list[dict[str, Any]]:
    """Print and return times of both exported models by threads and length."""
    decoder = decoder_of(ModelConfig(**MODEL))
    theirs = Incumbent(package, np.array([8]), torch.float32).model.eval()
    contents = convert(decoder, ExportConfig().opset, 0.5, {}), exported(theirs, theirs.input_dim)
    parameters = [sum(p.numel() for p in one.parameters()) for one in (decoder, theirs)]
    print(f"parameters: {parameters[0]}, particleflow {parameters[1]}")
    rows = []
    for threads in THREADS:
        session, other = (session_of(content, threads) for content in contents)
        for length in INCUMBENT_LENGTHS:
            feed = events_of(decoder, [length])
            fed = {
                "Xfeat_normed": np.random.default_rng(0)
                .random((1, length, theirs.input_dim))
                .astype(np.float32),
                "mask": np.ones((1, length), np.float32),
            }
            fed["Xfeat_normed"][..., 0] = 1 + feed["element_type"] % 2
            own, others = take_turns(
                seconds,
                partial(session.run, None, feed),
                partial(other.run, None, fed),
            )
            row = {
                "threads": threads,
                "length": length,
                "ms": statistics.median(own),
                "incumbent_ms": statistics.median(others),
            }
            row["speedup"] = row["incumbent_ms"] / row["ms"]
            rows.append(row)
            print(
                f"{threads} threads, 1 x {length:4d}: {row['ms']:8.2f} ms, particleflow"
                f" {row['incumbent_ms']:8.2f} ms, ratio {row['speedup']:.2f}",
                flush=True,
            )
    return rows


def profiled(backbone: str, length: int, runs: int = 10) -> dict[str, float]:
    """Print and return each operator's share of the time of an event on one thread."""
    decoder = decoder_of(ModelConfig(backbone=backbone))
    content = convert(decoder, ExportConfig().opset, 0.5, {})
    feed = events_of(decoder, [length])
    with tempfile.TemporaryDirectory() as folder:
        session = session_of(
            content, 1, enable_profiling=True, profile_file_prefix=f"{folder}/profile"
        )
        for _ in range(runs):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text())
    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("kernel_time"):
            spent[event["args"]["op_name"]] += event["dur"]
            calls[event["args"]["op_name"]] += 1
    total = sum(spent.values())
    print(f"{backbone}, 1 x {length}: {total / runs / 1e3:.2f} ms in nodes")
    for name, one in spent.most_common():
        print(f"{name:24s} {one / total:6.1%} {calls[name] // runs:4d} nodes")
    return {name: round(one / total, 3) for name, one in spent.most_common()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--incumbent", type=Path, help="folder with particleflow")
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--backbones", nargs="+", default=list(BACKBONES), choices=list(BACKBONES))
    parser.add_argument("--seconds", type=float, default=1.0, help="for each comparison")
    parser.add_argument("--alone", action="store_true", help="no comparison with particleflow")
    parser.add_argument("--profile", type=int, metavar="LENGTH")
    options = parser.parse_args()
    if options.profile:
        print(json.dumps({name: profiled(name, options.profile) for name in options.backbones}))
        return
    rows = [
        row
        for backbone in options.backbones
        for row in against_torch(backbone, options.lengths, options.seconds)
    ]
    result: dict[str, Any] = {
        "ort_over_torch": min(row["ort_over_torch"] for row in rows if row["threads"] == 1),
        "ort_over_torch_two_threads": min(
            row["ort_over_torch"] for row in rows if row["threads"] > 1
        ),
        "speedup_vs_incumbent": None,
    }
    with tempfile.TemporaryDirectory() as folder:
        package = options.incumbent or (not options.alone and fetched(Path(folder) / "package"))
        if package:
            compared = against_incumbent(package, options.seconds)
            result["speedup_vs_incumbent"] = min(row["speedup"] for row in compared)
    print(json.dumps({name: value and round(value, 2) for name, value in result.items()}))


if __name__ == "__main__":
    main()
