"""Run an exported model on the elements of many events with onnxruntime.

Raw features and types of the elements of a block of events, flat -> class scores, charges,
four-momenta and weights of the same elements, flat (export's interface: column 0 of the scores is
"none"; GeV), and latents if they are asked for.
Events are sorted by length and cut into padded batches of at most a given number of elements, so
padding stays small; results return to the order of the events. What the model must be fed comes
from its own metadata.

Invariant: an event's result does not depend on the others in the block beyond rounding, because the
model masks padding.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from particleforge.config.detector import ElementsConfig
from particleforge.errors import UserError
from particleforge.preprocessing.features import ElementFeatures, n_features
from particleforge.stored import SEAL, check_regular, check_seal, first_problem
from particleforge.tables import schema

_OUTPUTS = ("class_scores", "charge", "p4", "weight")
_QUIET = 3  # onnxruntime's severity "error"
_CPU = "CPUExecutionProvider"  # in every onnxruntime, and the last resort

logger = logging.getLogger(__name__)


class ClassMetadata(BaseModel):
    """A class in a model's metadata; "none" has but a name."""

    model_config = ConfigDict(allow_inf_nan=False)
    name: str
    pdg: int | None = Field(None, gt=0)
    charged: bool | None = None
    mass_gev: float | None = Field(None, ge=0)
    label: str | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.name != _NONE and None in (self.pdg, self.charged, self.mass_gev):
            raise ValueError(f"class {self.name} lacks pdg, charged or mass_gev")
        return self


class OnnxMetadata(BaseModel):
    """What is read of a model's metadata; a model without a kind is of an older version."""

    model_config = ConfigDict(allow_inf_nan=False)
    kind: Literal["onnx_model"] = "onnx_model"
    elements: dict[str, list[dict[str, Any]]]
    classes: list[ClassMetadata] = Field(min_length=2)
    presence_threshold: float = Field(ge=0, le=1)
    normalisation: dict[str, dict[str, list[float]]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        names = [one.name for one in self.classes]
        if names[0] != _NONE or len(set(names)) < len(names):
            raise ValueError(
                f"classes: are {', '.join(names)}, not none and then others, each once"
            )
        for name, moments in (self.normalisation or {}).items():
            for moment, values in moments.items():
                if len(values) != len(self.elements.get(name, ())):
                    raise ValueError(f"normalisation: {name}.{moment} does not match elements")
        return self


_NONE = "none"
_READ = OnnxMetadata.model_fields


@dataclass(frozen=True)
class Predictions:
    """What the model says about each element of a block."""

    class_scores: NDArray[np.float32]  # [n_total, 1 + n_classes]
    charge: NDArray[np.int64]  # [n_total]
    p4: NDArray[np.float32]  # [n_total, 4], px, py, pz, energy in GeV
    weight: NDArray[np.float32]  # [n_total], factor of p4 in sums
    latents: NDArray[np.float16] | None = None  # [n_total, latent_width]


class OnnxModel:
    """An exported model with its description: ``elements`` and ``classes`` (class 0 is none).

    ``presence_threshold`` is the weight from which on a candidate belongs to lists of particles,
    ``latent_width`` how many latents an element has, 0 where they are not asked for.
    """

    def __init__(
        self, path: Path, threads: int, providers: Sequence[str] = (_CPU,), latents: bool = False
    ) -> None:
        """Load a model.

        ``providers``: onnxruntime's execution providers in the order of preference; ``latents``:
        whether these are wanted. A file that is no model, was not exported by this package or lacks
        wanted latents is a UserError.
        """
        self._path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _QUIET
        options.use_deterministic_compute = True
        check_regular(path)
        try:
            with redirect_stdout(None):  # where it would tell that it tries again
                self._session = _session(path, options, providers)
            metadata = self._session.get_modelmeta().custom_metadata_map  # text, if it is whole
        except Exception as error:
            # onnxruntime has one exception type per status, without a common base
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: not a usable ONNX model ({reason}); rerun export_onnx"
            ) from error
        missing = set(_OUTPUTS) - {output.name for output in self._session.get_outputs()}
        if missing:
            raise UserError(
                f"{path}: lacks output {', '.join(sorted(missing))}, as one of an older version"
                " does; export the model again"
            )
        self.latent_width = self._width_of_latents() if latents else 0
        check_seal(path, metadata.get(SEAL))
        try:
            told = OnnxMetadata.model_validate(
                {key: json.loads(value) for key, value in metadata.items() if key in _READ}
            )
            self.elements = ElementsConfig.model_validate(
                {
                    name: _features(told.elements[name])
                    for name in schema.element_types(told.elements)
                }
            )
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            reason = first_problem(error) if isinstance(error, ValidationError) else repr(error)
            raise UserError(
                f"{path}: metadata do not tell elements, classes and presence threshold"
                f" ({reason}); export the model again"
            ) from error
        self.classes = [one.model_dump(exclude_none=True) for one in told.classes]
        self.presence_threshold = told.presence_threshold
        self.n_features = n_features(self.elements)
        self._check_interface()

    def _width_of_latents(self) -> int:
        """Return how many latents the model gives an element; UserError if it gives none."""
        for output in self._session.get_outputs():
            if output.name == schema.LATENTS.name and isinstance(output.shape[-1], int):
                return int(output.shape[-1])
        raise UserError(
            f"{self._path}: has no output {schema.LATENTS.name}, which reconstruction.latents asks"
            " for; export the model with export.latents: true"
        )

    def _check_interface(self) -> None:
        """Raise a UserError where the network's inputs or outputs are not as the metadata say."""
        wanted: dict[str, tuple[str, int | None]] = {
            "features": ("tensor(float)", self.n_features),
            "element_type": ("tensor(int64)", None),
            "class_scores": ("tensor(float)", len(self.classes)),
            "charge": ("tensor(int64)", None),
            "p4": ("tensor(float)", 4),
            "weight": ("tensor(float)", None),
        }
        if self.latent_width:
            wanted[schema.LATENTS.name] = ("tensor(float)", self.latent_width)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if {one.name for one in inputs} != {"features", "element_type"}:
            raise UserError(
                f"{self._path}: its inputs are {', '.join(one.name for one in inputs)}, not"
                " features and element_type; export the model again"
            )
        for one in (*inputs, *outputs):
            kind, width = wanted.get(one.name, (one.type, None))
            rank = 2 if width is None else 3
            wrong_width = width is not None and one.shape[-1:] not in ([width], [None])
            if isinstance((one.shape or [None])[-1], str):
                wrong_width = False  # a size that only a batch tells; predict looks at that
            if one.name in wanted and (one.type != kind or len(one.shape) != rank or wrong_width):
                raise UserError(
                    f"{self._path}: {one.name} is {one.type} of shape {one.shape}, its metadata"
                    f" tell {kind} of {f'{width} columns' if width else 'no columns'}; export the"
                    " model again"
                )

    def predict(self, elements: ElementFeatures, elements_per_batch: int) -> Predictions:
        """Return the predictions for each element of a block, in the order given."""
        total = len(elements.element_type)
        found = Predictions(
            np.zeros((total, len(self.classes)), np.float32),
            np.zeros(total, np.int64),
            np.zeros((total, 4), np.float32),
            np.zeros(total, np.float32),
            np.zeros((total, self.latent_width), np.float16) if self.latent_width else None,
        )
        for rows in padded_batches(elements.n_elements.astype(np.int64), elements_per_batch):
            real = rows >= 0
            features = np.where(real[..., None], elements.features[rows], np.float32(0))
            element_type = np.where(real, elements.element_type[rows], schema.PADDING).astype(
                np.int64
            )
            scores, charge, p4, weight, *latents = self._run(
                {"features": features, "element_type": element_type}
            )
            places = rows[real]
            found.class_scores[places] = scores[real]
            found.charge[places] = charge[real]
            found.p4[places] = p4[real]
            found.weight[places] = weight[real]
            if found.latents is not None:
                with np.errstate(over="ignore"):  # infinite, and refused below
                    found.latents[places] = latents[0][real]
        for name in ("class_scores", "p4", "weight", schema.LATENTS.name):
            values = getattr(found, name)
            bad = 0 if values is None else int(np.sum(~np.isfinite(values)))
            if bad:
                remedy = (
                    "beyond float16; set reconstruction.latents: false"
                    if name == schema.LATENTS.name
                    else "not finite; train and export the model again"
                )
                raise UserError(f"{self._path}: {bad} values of output {name} are {remedy}")
        return found

    def _run(self, batch: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Return the outputs of a batch; a network that fails or gives other shapes: UserError."""
        columns = dict(zip(_OUTPUTS, ((len(self.classes),), (), (4,), ()), strict=True))
        if self.latent_width:
            columns[schema.LATENTS.name] = (self.latent_width,)
        try:
            outputs: list[NDArray[Any]] = self._session.run(list(columns), batch)
        except Exception as error:  # as above
            reason = str(error).splitlines()[0][:200]
            raise UserError(
                f"{self._path}: the model fails on a batch ({reason}); export it again"
            ) from error
        shape = batch["element_type"].shape
        for (name, width), found in zip(columns.items(), outputs, strict=True):
            if found.shape != (*shape, *width):
                raise UserError(
                    f"{self._path}: output {name} has shape {found.shape}, its metadata tell"
                    f" {(*shape, *width)}; export the model again"
                )
        return outputs


def padded_batches(
    n_elements: NDArray[np.int64], elements_per_batch: int
) -> Iterator[NDArray[np.int64]]:
    """Yield batches [n_events, longest] of flat element positions, -1 for padding.

    Events without elements are in none.

    Events are taken from the longest to the shortest, as many as the budget holds at the batch's
    length, at least one.
    """
    first = np.cumsum(n_elements) - n_elements
    order = np.argsort(-n_elements, kind="stable")
    order = order[n_elements[order] > 0]
    start = 0
    while start < len(order):
        longest = n_elements[order[start]]
        events = order[start : start + max(1, elements_per_batch // int(longest))]
        place = np.arange(longest)
        yield np.where(place < n_elements[events, None], first[events, None] + place, -1)
        start += len(events)


def _session(
    path: Path, options: ort.SessionOptions, providers: Sequence[str]
) -> ort.InferenceSession:
    """Return a session on those of the providers that can be used here, else on the CPU."""
    has = ort.get_available_providers()
    usable = list(dict.fromkeys([*(name for name in providers if name in has), _CPU]))
    session = ort.InferenceSession(str(path), options, providers=usable)
    used = session.get_providers()  # less those that do not start, as without their device
    for name in providers:
        if name not in used:
            logger.warning(
                "reconstruction.execution_providers: %s cannot be used here, where onnxruntime has"
                " %s; going on with %s",
                name,
                ", ".join(has),
                ", ".join(used),
            )
    return session


def _features(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a FeatureConfig takes of a feature's description; the unit is for readers."""
    return [{"name": feature["name"], "transform": feature["transform"]} for feature in described]
