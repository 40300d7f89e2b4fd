"""Run an exported model on the elements of many events with onnxruntime.

Raw features and types of the elements of a block of events, flat -> class scores, charges,
four-momenta and weights of the same elements, flat (export's interface: column 0 of the scores is
"none"; GeV).
Events are sorted by length and cut into padded batches of at most a given number of elements, so
padding stays small; results return to the order of the events. What the model must be fed comes
from its own metadata.

Invariant: an event's result does not depend on the others in the block beyond rounding, because the
model masks padding.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from pydantic import ValidationError

from particleforge.config.detector import ElementsConfig
from particleforge.errors import UserError
from particleforge.preprocessing.features import ElementFeatures, n_features
from particleforge.tables import schema

_OUTPUTS = ("class_scores", "charge", "p4", "weight")
_QUIET = 3  # onnxruntime's severity "error"


@dataclass(frozen=True)
class Predictions:
    """What the model says about each element of a block."""

    class_scores: NDArray[np.float32]  # [n_total, 1 + n_classes]
    charge: NDArray[np.int64]  # [n_total]
    p4: NDArray[np.float32]  # [n_total, 4], px, py, pz, energy in GeV
    weight: NDArray[np.float32]  # [n_total], factor of p4 in sums


class OnnxModel:
    """An exported model with its description: ``elements`` and ``classes`` (class 0 is none).

    ``presence_threshold`` is the weight from which on a candidate belongs to lists of particles.
    """

    def __init__(self, path: Path, threads: int) -> None:
        """Load a model.

        A file that is none, or was not exported by this package, is a UserError.
        """
        self._path = path
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = _QUIET
        options.use_deterministic_compute = True
        try:
            self._session = ort.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
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
        metadata = self._session.get_modelmeta().custom_metadata_map
        try:
            described = json.loads(metadata["elements"])
            self.elements = ElementsConfig.model_validate(
                {name: _features(described[name]) for name in schema.element_types(described)}
            )
            self.classes: list[dict[str, Any]] = json.loads(metadata["classes"])
            self.presence_threshold = float(metadata["presence_threshold"])
        except (KeyError, TypeError, ValueError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(
                f"{path}: metadata do not tell elements, classes and presence threshold"
                f" ({reason}); export the model again"
            ) from error
        self.n_features = n_features(self.elements)

    def predict(self, elements: ElementFeatures, elements_per_batch: int) -> Predictions:
        """Return the predictions for each element of a block, in the order given."""
        total = len(elements.element_type)
        found = Predictions(
            np.zeros((total, len(self.classes)), np.float32),
            np.zeros(total, np.int64),
            np.zeros((total, 4), np.float32),
            np.zeros(total, np.float32),
        )
        for rows in padded_batches(elements.n_elements.astype(np.int64), elements_per_batch):
            real = rows >= 0
            features = np.where(real[..., None], elements.features[rows], np.float32(0))
            element_type = np.where(real, elements.element_type[rows], schema.PADDING).astype(
                np.int64
            )
            scores, charge, p4, weight = self._session.run(
                _OUTPUTS, {"features": features, "element_type": element_type}
            )
            places = rows[real]
            found.class_scores[places] = scores[real]
            found.charge[places] = charge[real]
            found.p4[places] = p4[real]
            found.weight[places] = weight[real]
        for name in ("class_scores", "p4", "weight"):
            bad = int(np.sum(~np.isfinite(getattr(found, name))))
            if bad:
                raise UserError(
                    f"{self._path}: {bad} values of output {name} are not finite; train and export"
                    " the model again"
                )
        return found


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


def _features(described: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what a FeatureConfig takes of a feature's description; the unit is for readers."""
    return [{"name": feature["name"], "transform": feature["transform"]} for feature in described]
