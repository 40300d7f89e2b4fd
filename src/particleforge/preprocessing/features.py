"""Raw features of the elements of events, laid out once for training and reconstruction.

Events (awkward records with ``tracks`` and ``clusters``, units as in ``schema``) and the configured
features per element type -> flat arrays over all elements of all events: per event its tracks, in
order, then its clusters (or hits), in order. Features are the raw physical quantities; transforms
and standardisation belong to the model. Types with fewer features than the widest are padded with
columns of zeros.

Derived features: ``sin_phi``, ``cos_phi`` of the azimuth and ``sin_phi_calo``, ``cos_phi_calo`` of
the azimuth at the calorimeter (``phi_calo`` of a track; the position's ``phi`` for a cluster or
hit, which is in the calorimeter already).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
from numpy.typing import NDArray

from particleforge.config.detector import ElementsConfig, FeatureConfig
from particleforge.errors import UserError
from particleforge.tables import schema

COLLECTION_OF = {"track": schema.TRACKS, "cluster": schema.CLUSTERS, "hit": schema.HITS}
_ANGLE_FUNCTIONS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "sin": np.sin,
    "cos": np.cos,
}


@dataclass(frozen=True)
class ElementFeatures:
    """Elements of a block of events, flat."""

    n_elements: NDArray[np.int32]  # [n_events]
    element_type: NDArray[np.int8]  # [n_total], 1 + index in ElementsConfig.types
    features: NDArray[np.float32]  # [n_total, n_features], raw


def n_features(elements: ElementsConfig) -> int:
    """Return the width of the feature matrix: the largest number of features of any type."""
    return max(len(getattr(elements, name)) for name in elements.types)


def element_features(events: ak.Array, elements: ElementsConfig) -> ElementFeatures:
    """Return type and raw features of each element of each event."""
    collections = [events[COLLECTION_OF[name].name] for name in elements.types]
    # [n_events, n_types]
    counts = np.stack([ak.to_numpy(ak.num(collection)) for collection in collections], axis=1)
    per_event = counts.sum(axis=1)
    # the elements of event i and type t start where all elements before them end
    starts = (np.cumsum(counts.ravel()) - counts.ravel()).reshape(counts.shape)
    element_type = np.empty(int(per_event.sum()), dtype=np.int8)
    features = np.zeros((len(element_type), n_features(elements)), dtype=np.float32)
    for number, (name, collection) in enumerate(zip(elements.types, collections, strict=True)):
        rows = _ranges(starts[:, number], counts[:, number])
        element_type[rows] = 1 + number
        features[rows, : len(getattr(elements, name))] = _columns(
            collection, getattr(elements, name), name
        )
    return ElementFeatures(per_event.astype(np.int32), element_type, features)


def check_elements(events: ak.Array, elements: ElementsConfig, source: Path) -> None:
    """Refuse events with other calorimeter elements than the features are for.

    UserError.
    """
    found = schema.calorimeter_type(ak.fields(events.clusters))
    if found not in elements.types:
        raise UserError(
            f"{source}: its calorimeter elements are {found}s, the features are those of"
            f" {elements.types[1]}s; build the dataset with dataset.calorimeter_elements:"
            f" {elements.types[1]}s"
        )


def check_finite(found: ElementFeatures, elements: ElementsConfig, source: Path) -> None:
    """Refuse features that are not finite with a UserError that names file, column and count."""
    bad = ~np.isfinite(found.features)
    if not bad.any():
        return
    for number, name in enumerate(elements.types, start=1):
        counts = bad[found.element_type == number].sum(axis=0)
        if counts.any():
            column = int(np.argmax(counts > 0))
            feature = getattr(elements, name)[column].name
            raise UserError(
                f"{source}: {COLLECTION_OF[name].name}.{feature}: {counts[column]} values are not"
                f" finite; rebuild the dataset, or take {feature} out of elements.{name}"
            )


def feature_units(element_type: str, features: Sequence[FeatureConfig]) -> list[str]:
    """Return the unit of each feature; derived ones have none."""
    units = {field.name: field.unit for field in COLLECTION_OF[element_type].fields}
    return [units.get(feature.name, "") for feature in features]


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return ``start ... start + count - 1`` for each pair, concatenated."""
    positions: NDArray[np.int64] = np.arange(counts.sum()) + np.repeat(
        starts - (np.cumsum(counts) - counts), counts
    )
    return positions


def _columns(
    collection: ak.Array, features: Sequence[FeatureConfig], element_type: str
) -> NDArray[np.float32]:
    """Return the features of all objects of a collection, [n_objects, n_features of the type]."""
    flat = ak.flatten(collection)
    return np.stack(
        [_column(flat, feature.name, element_type) for feature in features], axis=1
    ).astype(np.float32)


def _column(flat: ak.Array, name: str, element_type: str) -> NDArray[np.float64]:
    values: NDArray[np.float64] = ak.to_numpy(flat[schema.member_of(name, element_type)]).astype(
        np.float64
    )
    return _ANGLE_FUNCTIONS[name[:3]](values) if name in schema.DERIVED_FEATURES else values
