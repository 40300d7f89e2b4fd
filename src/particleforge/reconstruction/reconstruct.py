"""Reconstruct events with an exported model; needs onnxruntime, not torch.

Dataset or selected file (Parquet) and ``model.onnx`` -> candidates per event in Parquet
(tables.RECONSTRUCTED_SCHEMA) and the same as a ReconstructedParticle collection in an EDM4hep ROOT
file. Of a selected file, events of the configured splits are reconstructed, of a dataset all. Files
are streamed block by block. The metadata of the Parquet file say from which weight on a candidate
belongs to lists of particles (``presence_threshold``, as the model has it).

Invariants: events keep their order; the features and their order are those in the model's metadata.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from particleforge.config.settings import ReconstructSettings
from particleforge.errors import UserError
from particleforge.preprocessing.features import check_elements, check_finite, element_features
from particleforge.provenance.record import Provenance
from particleforge.reconstruction.candidates import candidates_of
from particleforge.reconstruction.edm4hep_output import write_particles
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.tables import schema
from particleforge.tables.parquet import (
    RECONSTRUCTED_SCHEMA,
    iter_events,
    read_metadata,
    to_arrow,
    write_table,
)


def reconstruct_events(
    settings: ReconstructSettings,
    *,
    events: Path,
    model: Path,
    output: Path,
    edm4hep: Path,
    built_from: Path | None = None,
) -> None:
    """Write the candidates of a file's events as Parquet (``output``) and ROOT (``edm4hep``).

    ``built_from`` is the file that ``events`` was built from, if that will not be kept: provenance
    names it, and the settings of the dataset, instead.
    """
    source = read_metadata(events)
    dataset = {"dataset": source["provenance"]["settings"]} if built_from else {}
    made = Provenance.of(
        "reconstruct_events", {**settings.plain(), **dataset}, [built_from or events, model]
    )
    network = OnnxModel(model, settings.reconstruction.threads)
    _check_minimum(settings.reconstruction.presence_min, network.presence_threshold, model)
    metadata: dict[str, Any] = {
        "sample": source.get("sample"),
        "classes": network.classes,
        "presence_threshold": network.presence_threshold,
        "provenance": made.plain(),
    }
    write_table(output, _reconstructed(settings, events, network), RECONSTRUCTED_SCHEMA, metadata)
    write_particles(
        edm4hep, settings.reconstruction.collection, output, network.classes, made.plain()
    )
    made.record(output, edm4hep)


def _check_minimum(presence_min: float, threshold: float, model: Path) -> None:
    """Raise a UserError where candidates would be left out that lists of particles hold."""
    if presence_min > threshold:
        raise UserError(
            f"reconstruction.presence_min: {presence_min:g} is above the presence threshold of"
            f" {model}, {threshold:g}; set it to that at most"
        )


def _reconstructed(
    settings: ReconstructSettings, path: Path, network: OnnxModel
) -> Iterator[pa.Table]:
    """Yield the candidates of the file's blocks."""
    config = settings.reconstruction
    has_split = schema.SPLIT.name in pq.read_schema(path).names
    header = [field.name for field in schema.EVENT]
    for block in iter_events(
        path, [*header, "tracks", "clusters", *([schema.SPLIT.name] if has_split else [])]
    ):
        events = block[np.isin(ak.to_numpy(block.split), config.splits)] if has_split else block
        check_elements(events, network.elements, path)
        elements = element_features(events, network.elements)
        check_finite(elements, network.elements, path)
        found = network.predict(elements, config.elements_per_batch)
        candidates = candidates_of(found, elements.n_elements, network.classes, config.presence_min)
        columns = {name: events[name] for name in header} | {schema.CANDIDATES.name: candidates}
        yield to_arrow(ak.zip(columns, depth_limit=1), RECONSTRUCTED_SCHEMA)
