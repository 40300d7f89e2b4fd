"""Fine-tuning: initial weights from a network trained on another detector or in another run.

Inputs -> outputs: a new network and a ``best.pt`` (``model.saved``) or a checkpoint
(``training.checkpoint``) of another training -> the network's weights with everything of the other
that has a counterpart, and one line that says what was copied.

Rules: features are matched by element type, name and transform, particle classes by name, charges
by value; columns of the input projection and rows of the identity head's last layer without a
counterpart keep their fresh values. Normalisation is always the new one, that of the data to be
trained on: standardised features are what two detectors have in common. All other weights must have
equal shapes, and where they have not, the settings of ``model`` that make the difference are named.

Source: pre-training on one detector and fine-tuning on another, arXiv:2503.00131, section 3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from particleforge.config.model import ModelConfig
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import N_CHARGES, ParticleFlowNetwork
from particleforge.model.saved import check_format, check_weights, deserialise
from particleforge.model.surroundings import N_SURROUNDINGS

# what a row or column of a weight stands for; None for nothing
_Labels = Sequence[tuple[str, ...] | None]
_KEY = "training.init_from"
_BUILT_IN = "built in"  # columns that every network has, whatever its features


@dataclass(frozen=True)
class Source:
    """A trained network: its weights, settings and inputs, and the file that they come from."""

    path: Path
    weights: dict[str, Tensor]
    model: ModelConfig
    inputs: ModelInputs


def read_source(path: Path) -> Source:
    """Read a model or a checkpoint; a file that is neither is a UserError."""
    try:
        content: dict[str, Any] = deserialise(path.read_bytes(), path)
        weights = (
            content["weights"]
            if "weights" in content
            else content["averaged"] or content["network"]
        )
        source = Source(
            path, weights, ModelConfig(**content["model"]), ModelInputs(**content["inputs"])
        )
        check_weights(weights, path)
        source.inputs.check(path)
        if "weights" in content:  # a checkpoint belongs to settings with a version of their own
            check_format(content, path)
        return source
    except FileNotFoundError:
        raise UserError(
            f"{_KEY}: {path}: no such file; give the best.pt or a checkpoint of a training"
        ) from None
    except UserError:
        raise
    except Exception as error:  # torch raises many kinds for damaged and foreign files
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(
            f"{_KEY}: {path}: no model or checkpoint of this package ({reason}); give the best.pt"
            " of a training"
        ) from error


def transferred(source: Source, network: ParticleFlowNetwork) -> tuple[dict[str, Tensor], str]:
    """Return new values of all parameters, and one line: what was copied and what is fresh.

    A UserError names the settings of ``model`` whose difference makes other shapes.
    """
    fresh = {name: parameter.detach().cpu() for name, parameter in network.named_parameters()}
    columns, rows = _columns(source.inputs), _rows(source.inputs)
    new_columns, new_rows = _columns(network.inputs), _rows(network.inputs)
    last = f"identity_head.{len(network.identity_head) - 1}"
    labels: dict[str, tuple[int, _Labels, _Labels]] = {
        "encoder.project.weight": (1, columns, new_columns),
        f"{last}.weight": (0, rows, new_rows),
        f"{last}.bias": (0, rows, new_rows),
    }
    values, misfits = {}, []
    for name, value in fresh.items():
        found = source.weights.get(name)
        dimension, old, new = labels.get(name, (0, (), ()))
        if found is None or _shape(found, dimension if new else None) != _shape(
            value, dimension if new else None
        ):
            misfits.append(name)
        elif new:
            values[name] = _copied(found, value, dimension, old, new)
        else:
            values[name] = found
    if misfits or source.weights.keys() - network.state_dict().keys():
        raise UserError(_misfit(source, network.config, misfits))
    return values, _summary(source, network, len(values))


def start_from(network: ParticleFlowNetwork, path: Path) -> str:
    """Overwrite the network's parameters with what a file holds of them.

    Return the line of ``transferred``.
    """
    values, line = transferred(read_source(path), network)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(values[name])
    return line


def _columns(inputs: ModelInputs) -> _Labels:
    """Return what the input projection's columns are: each type's features, bias, surroundings."""
    labels: list[tuple[str, ...] | None] = []
    for element_type in inputs.element_types:
        own = [
            (element_type, feature["name"], feature["transform"])
            for feature in inputs.elements[element_type]
        ]
        around = [(element_type, _BUILT_IN, str(index)) for index in range(N_SURROUNDINGS)]
        unused = [None] * (inputs.n_features - len(own))
        labels += [*own, *unused, (element_type, _BUILT_IN, "bias"), *around]
    return labels


def _rows(inputs: ModelInputs) -> _Labels:
    """Return what the outputs of the identity head stand for."""
    charges = [("charge", str(index)) for index in range(N_CHARGES)]
    return [
        ("presence",),
        *(("class", described["name"]) for described in inputs.classes[1:]),
        *charges,
    ]


def _shape(value: Tensor, without: int | None) -> list[int]:
    return [size for dimension, size in enumerate(value.shape) if dimension != without]


def _copied(found: Tensor, fresh: Tensor, dimension: int, old: _Labels, new: _Labels) -> Tensor:
    """Return ``fresh`` with the slices along ``dimension`` whose label ``found`` has, too."""
    value = fresh.clone()
    pairs = [
        (index, old.index(label))
        for index, label in enumerate(new)
        if label is not None and label in old
    ]
    to, origin = (torch.tensor(indices, dtype=torch.int64) for indices in zip(*pairs, strict=True))
    return value.index_copy_(dimension, to, found.index_select(dimension, origin))


def _different(source: Source, config: ModelConfig) -> list[str]:
    """Return the settings of the network that differ, with both values."""
    theirs, ours = source.model.model_dump(), config.model_dump()
    return [
        f"model.{key} is {theirs.get(key)} there and {ours[key]} here"
        for key in ours
        if theirs.get(key) != ours[key]
    ]


def _misfit(source: Source, config: ModelConfig, misfits: Sequence[str]) -> str:
    reason = (
        ", ".join(_different(source, config))
        or f"its weights are others than this package's ({', '.join(misfits[:3])})"
    )
    return (
        f"{_KEY}: {source.path}: a network of another architecture: {reason}; set the same, or"
        " train from scratch"
    )


def _summary(source: Source, network: ParticleFlowNetwork, n_copied: int) -> str:
    """Return one line of what was copied, what is fresh, and what of the source is not used."""
    parts = []
    for what, labels in (("features", _columns), ("classes", _rows)):
        old, new = (
            [label for label in labels(inputs) if label]
            for inputs in (source.inputs, network.inputs)
        )
        chosen = [
            label
            for label in new
            if label in old
            and (what == "features" or label[0] == "class")
            and _BUILT_IN not in label
        ]
        fresh, unused = (
            [".".join(label[:2]) for label in a if label not in b]
            for a, b in ((new, old), (old, new))
        )
        parts.append(
            f"{len(chosen)} {what} copied, fresh: {', '.join(fresh) or 'none'}, not used:"
            f" {', '.join(unused) or 'none'}"
        )
    parts += (
        [f"other settings: {', '.join(differing)}"]
        if (differing := _different(source, network.config))
        else []
    )
    return f"starting from {source.path}: {n_copied} weights; {'; '.join(parts)}"
