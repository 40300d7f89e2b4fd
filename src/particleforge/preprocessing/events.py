"""Turn selected events into the events of training shards.

Events (awkward records, tables.SELECTED_SCHEMA) -> Arrow table with the columns of
``schema.SHARD``: raw features and targets of each event's elements as flat lists. The target's
charge is its sign, because the network tells -1, 0 and 1 apart; the four-momentum is 0 where the
class is none.

Refused, with the file and column: values that are not finite, unknown classes, targets that do not
match the elements.
"""

from pathlib import Path

import awkward as ak
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from particleforge.config.settings import ShardSettings
from particleforge.errors import UserError
from particleforge.preprocessing.energy_shares import energy_shares
from particleforge.preprocessing.features import (
    ElementFeatures,
    check_elements,
    check_finite,
    element_features,
)
from particleforge.tables import schema
from particleforge.tables.parquet import SHARD_SCHEMA

_P4 = ("px", "py", "pz", "energy")


def shard_events(events: ak.Array, settings: ShardSettings, sample: str, source: Path) -> pa.Table:
    """Return a block of events as the shards hold them, in their order.

    ``source`` is named in errors.
    """
    check_elements(events, settings.elements, source)
    elements = element_features(events, settings.elements)
    targets = _targets(events, elements, len(settings.particle_classes), source)
    check_finite(elements, settings.elements, source)
    counts = elements.n_elements.astype(np.int64)
    columns = {
        "event_id": pa.array(ak.to_numpy(events.event_id)),
        "sample": pa.array([sample] * len(events), pa.string()),
        "weight": pa.array(ak.to_numpy(events.weight)),
        "n_elements": pa.array(elements.n_elements),
        "element_type": _lists(elements.element_type, counts),
        "features": _lists(elements.features, counts),
        "target_class": _lists(targets["class_id"], counts),
        "target_charge": _lists(np.sign(targets["charge"]), counts),
        "target_p4": _lists(_four_momentum(targets), counts),
        **{name: _lists(values, counts) for name, values in energy_shares(events).items()},
    }
    return pa.table(columns).cast(SHARD_SCHEMA)


def _lists(values: NDArray[np.generic], counts: NDArray[np.int64]) -> pa.ListArray:
    """Return values [n_total] or, row-major, [n_total, width] as one list per event."""
    width = values.shape[1] if values.ndim == 2 else 1
    offsets = np.concatenate([[0], np.cumsum(counts * width)])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values.ravel()))


def _targets(
    events: ak.Array, elements: ElementFeatures, n_classes: int, source: Path
) -> dict[str, NDArray[np.generic]]:
    mismatched = int(np.sum(ak.to_numpy(ak.num(events.targets)) != elements.n_elements))
    if mismatched:
        raise UserError(
            f"{source}: targets: {mismatched} events have not one target per element; rebuild the"
            " dataset"
        )
    flat = ak.flatten(events.targets)
    targets = {name: ak.to_numpy(flat[name]) for name in ("class_id", "charge", *_P4)}
    for name in _P4:
        bad = int(np.sum(~np.isfinite(targets[name])))
        if bad:
            raise UserError(
                f"{source}: targets.{name}: {bad} values are not finite; rebuild the dataset or"
                " exclude the file"
            )
    unknown = int(
        np.sum((targets["class_id"] < schema.NONE_CLASS) | (targets["class_id"] > n_classes))
    )
    if unknown:
        raise UserError(
            f"{source}: targets.class_id: {unknown} values are outside 0 ... {n_classes}; rebuild"
            " the dataset with these particle_classes"
        )
    return targets


def _four_momentum(targets: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    p4 = np.stack([targets[name] for name in _P4], axis=1).astype(np.float32)
    return np.where((targets["class_id"] != schema.NONE_CLASS)[:, None], p4, np.float32(0))
