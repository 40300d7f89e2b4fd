"""Whether the exported model says what the network says.

Both see real events: every length, padded, mixed and empty ones.

Inputs -> outputs: a ``Decoder`` in torch, an onnxruntime session, events of the test split ->
``Parity``: the largest differences with the event they occur in, and how the largest compare with
tolerances.

Cases: every event alone and unpadded; all events in one padded batch of mixed lengths; one event
cut to a single element; an event without elements, alone and in a batch. Scores and weights are
compared absolutely, momenta relative to the energy of the particle, latents to the root mean square
of the element's. A charge may differ only where the network itself is undecided to within the score
tolerance.

Invariant: torch is always fed the event alone and unpadded, so the padded cases also test that
padding does not matter.
"""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch

from particleforge.model.decode import OUTPUT_NAMES, Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.tables.schema import LATENTS
from particleforge.training.loader import ShardLoader

Array = npt.NDArray[Any]
_LATENTS = len(OUTPUT_NAMES)  # their place among the outputs, where there are any
_SMALLEST_RMS = 1e-3


class Session(Protocol):
    """What is used of ``onnxruntime.InferenceSession``."""

    def run(self, output_names: list[str], feed: dict[str, Array]) -> list[Array]:
        """Return the outputs of a batch."""


class Event(NamedTuple):
    """One event without padding."""

    name: str
    features: Array  # float32 [N, F]
    element_type: Array  # int64 [N]


@dataclass(frozen=True)
class Parity:
    """Largest differences over all cases, and where they occur."""

    n_events: int
    n_cases: int
    lengths: tuple[int, int]
    score_difference: float
    score_worst: str
    momentum_difference: float
    momentum_worst: str
    charges_that_differ: int
    charge_worst: str
    weight_difference: float
    weight_worst: str
    latent_difference: float | None = None  # of a model without latents
    latent_worst: str | None = None


def parity_events(manifest: Path, inputs: ModelInputs, n_events: int) -> list[Event]:
    """Return test events evenly over all lengths, one with a single element and one with none."""
    # one event per batch
    loader = ShardLoader(manifest, "test", inputs, budget=1, shards_in_memory=1, seed=0)
    lengths = np.concatenate(loader.lengths)
    order = np.argsort(lengths, kind="stable")
    chosen = set(
        order[
            np.unique(np.linspace(0, len(order) - 1, min(n_events, len(order))).round().astype(int))
        ].tolist()
    )
    events = []
    for index, (event, batch) in enumerate(_in_order(loader)):
        if event in chosen:
            n = int(lengths[event])
            events.append(
                Event(f"test event {event}", batch[0][0, :n].numpy(), batch[1][0, :n].numpy())
            )
        if index + 1 == len(lengths):
            break
    longest = max(events, key=lambda e: len(e.element_type))
    cut = Event(f"first element of {longest.name}", longest.features[:1], longest.element_type[:1])
    empty = Event("event without elements", longest.features[:0], longest.element_type[:0])
    return [*events, cut, empty]


def _in_order(loader: ShardLoader) -> Iterator[tuple[int, Any]]:
    """Yield each event's number within the split and its batch."""
    first = np.concatenate(([0], np.cumsum([len(lengths) for lengths in loader.lengths])))
    for planned, batch in zip(loader.plan(None), loader.once(), strict=True):
        yield int(first[planned.window[0]] + planned.events[0]), batch


def compare(
    decoder: Decoder, session: Session, events: list[Event], score_tolerance: float
) -> Parity:
    """Compare the session with the network on all cases; see the module's docstring."""
    expected = [_torch_outputs(decoder, event) for event in events]
    cases = [[i] for i in range(len(events))] + [list(range(len(events)))]
    names = decoder.output_names
    worst: dict[str, tuple[float, str]] = dict.fromkeys(names, (0.0, ""))
    for case in cases:
        batch = pad([events[i] for i in case])
        found = session.run(list(names), batch)
        for row, i in enumerate(case):
            where = (
                events[i].name + f" ({len(events[i].element_type)} elements, padded to"
                f" {batch['element_type'].shape[1]})"
            )
            differences = _differences(
                expected[i], [output[row] for output in found], score_tolerance
            )
            for name, difference in zip(names, differences, strict=True):
                # nothing is greater than NaN, so that stays
                if math.isnan(difference) or difference > worst[name][0]:
                    worst[name] = (difference, where)
    lengths = [len(event.element_type) for event in events]
    of_latents = worst.get(LATENTS.name, (None, None))
    return Parity(
        n_events=len(events),
        n_cases=len(cases),
        lengths=(min(lengths), max(lengths)),
        score_difference=worst["class_scores"][0],
        score_worst=worst["class_scores"][1],
        momentum_difference=worst["p4"][0],
        momentum_worst=worst["p4"][1],
        charges_that_differ=int(worst["charge"][0]),
        charge_worst=worst["charge"][1],
        weight_difference=worst["weight"][0],
        weight_worst=worst["weight"][1],
        latent_difference=of_latents[0],
        latent_worst=of_latents[1],
    )


def pad(events: list[Event]) -> dict[str, Array]:
    """Return the model's inputs for events padded with zeros to the longest."""
    length = max(len(event.element_type) for event in events)
    features = np.zeros((len(events), length, events[0].features.shape[1]), np.float32)
    element_type = np.zeros((len(events), length), np.int64)
    for row, event in enumerate(events):
        features[row, : len(event.element_type)] = event.features
        element_type[row, : len(event.element_type)] = event.element_type
    return {"features": features, "element_type": element_type}


@torch.no_grad()
def _torch_outputs(decoder: Decoder, event: Event) -> list[Array]:
    """Return the outputs for the elements, and behind them the margin of each charge.

    The margin is that by which the charge was decided.
    """
    features = torch.from_numpy(event.features[None])
    element_type = torch.from_numpy(event.element_type[None])
    found = [output[0] for output in decoder(features, element_type)]
    outputs = decoder.network(features, element_type)
    top = found[0][:, 1:].topk(2, -1).values
    signs = outputs.charge[0].softmax(-1)
    margin = torch.minimum((top[:, 0] - top[:, 1]).abs(), (signs[:, 0] - signs[:, 2]).abs())
    return [output.numpy() for output in (*found, margin)]


def _differences(
    expected: list[Array], found: list[Array], score_tolerance: float
) -> tuple[float, ...]:
    """Return the largest difference of each output."""
    scores, charge, p4, weight, *latents, margin = expected
    n = len(charge)
    score = _largest(np.abs(found[0][:n] - scores))
    momentum = _largest(np.abs(found[2][:n] - p4) / np.maximum(p4[:, 3:], 1e-3))
    weights = _largest(np.abs(found[3][:n] - weight))
    charges = int(((found[1][:n] != charge) & (margin > score_tolerance)).sum())
    of_latents = (
        _largest(np.abs(found[_LATENTS][:n] - one) / np.maximum(_rms(one), _SMALLEST_RMS))
        for one in latents
    )
    padding_is_right = (found[0][n:] == np.eye(1, scores.shape[1])).all() and not any(
        output[n:].any() for output in found[1:]
    )
    score = score if padding_is_right else float("nan")
    return score, charges, momentum, weights, *of_latents


def _rms(values: Array) -> Array:
    """Return the root mean square of each row, [n, 1]."""
    found: Array = np.sqrt(np.mean(np.square(values), axis=1, keepdims=True))
    return found


def _largest(values: Array) -> float:
    return float(values.max(initial=0.0)) if np.isfinite(values).all() else float("nan")


def events_per_second(
    decoder: Decoder, session: Session, events: list[Event], batch_size: int = 16
) -> dict[str, float]:
    """Return how many events per second onnxruntime and torch process on one thread.

    Batches hold events of like length.
    """
    ordered = sorted(events, key=lambda event: len(event.element_type))
    batches = [pad(ordered[i : i + batch_size]) for i in range(0, len(ordered), batch_size)]

    def with_torch(batch: dict[str, Array]) -> None:
        with torch.no_grad():
            decoder(*(torch.from_numpy(value) for value in batch.values()))

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    speeds = {}
    for name, apply in (
        ("onnxruntime", lambda batch: session.run(list(decoder.output_names), batch)),
        ("torch", with_torch),
    ):
        times = []
        for _ in range(4):
            started = time.perf_counter()
            for batch in batches:
                apply(batch)
            times.append(time.perf_counter() - started)
        speeds[name] = len(ordered) / min(times[1:])
    torch.set_num_threads(threads)
    return speeds
