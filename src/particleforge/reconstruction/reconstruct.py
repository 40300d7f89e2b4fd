"""Reconstruct events with an exported model; needs onnxruntime, not torch.

Dataset or selected file (Parquet) and ``model.onnx`` -> candidates per event in Parquet
(tables.RECONSTRUCTED_SCHEMA) and the same as a ReconstructedParticle collection in an EDM4hep ROOT
file. Of a selected file, events of the configured splits are reconstructed, of a dataset all. Files
are streamed block by block. The metadata of the Parquet file say from which weight on a candidate
belongs to lists of particles (``presence_threshold``, as the model has it). With
``reconstruction.latents`` it has the latents of each candidate's element besides.

Of truth nothing is read. What was built without it (``dataset.truth: none``) says where its
elements lie in the file that was read, so its candidates name the tracks and clusters there.
``reconstruct_file`` goes from such a file, EDM4hep or Delphes, to candidates.

Invariants: events keep their order; the features and their order are those in the model's metadata.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from particleforge.ahead import made_ahead
from particleforge.config.settings import DatasetSettings, ReconstructSettings
from particleforge.dataset.build import Built, build_into
from particleforge.edm4hep.copies import Copies
from particleforge.errors import UserError
from particleforge.inputs.formats import is_delphes
from particleforge.preprocessing.features import check_elements, check_finite, element_features
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.reconstruction.candidates import candidates_of
from particleforge.reconstruction.edm4hep_output import referred_to, write_particles
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.stored import Stored
from particleforge.tables import schema
from particleforge.tables.parquet import (
    DATASET,
    NO_TRUTH,
    RECONSTRUCTED,
    RECONSTRUCTED_SCHEMA,
    SELECTED,
    from_arrow,
    iter_events,
    n_events_in,
    read_metadata,
    to_arrow,
    with_latents,
    with_origins,
    write_table,
)


class ReconstructedMetadata(Stored):
    """What readers take of the metadata of reconstructed events."""

    KIND = RECONSTRUCTED
    REMEDY = "rerun reconstruct_events"
    sample: str | None = None
    classes: tuple[dict[str, Any], ...] = ()
    presence_threshold: float


@dataclass(frozen=True)
class _Source:
    """Events to reconstruct, block by block.

    ``metadata`` are those of a dataset or selected file, and whole after the last block; ``path``
    is the file that messages name.
    """

    path: Path
    made: Provenance
    metadata: Mapping[str, Any]
    has_split: bool
    blocks: Iterator[ak.Array]


def reconstruct_events(
    settings: ReconstructSettings, *, events: Path, model: Path, output: Path, edm4hep: Path
) -> None:
    """Write the candidates of a table's events as Parquet (``output``) and ROOT (``edm4hep``)."""
    metadata = read_metadata(events, DATASET, SELECTED)
    made = Provenance.of("reconstruct_events", settings.plain(), [events, model])
    has_split = schema.SPLIT.name in pq.read_schema(events).names
    read = _columns_read(metadata, has_split)
    blocks = shown(iter_events(events, read), "event", n_events_in(events), len)
    source = _Source(events, made, metadata, has_split, blocks)
    _reconstruct(settings, source, None, model, output, edm4hep)


def reconstruct_file(
    settings: ReconstructSettings,
    dataset: DatasetSettings,
    file: Path,
    *,
    model: Path,
    output: Path,
    edm4hep: Path,
) -> None:
    """Write the candidates of an EDM4hep or Delphes file's events, of which no truth is read."""
    untold = dataset.dataset.model_copy(update={"truth": "none"})

    def reconstruct(built: Built) -> None:
        made = Provenance.of(
            "reconstruct_events",
            {**settings.plain(), "dataset": dict(built.made.settings)},
            [file, model],
            known=built.made.inputs,
        )
        read = _columns_read(built.metadata, has_split=False)
        blocks = (from_arrow(table.select(read)) for table in built.tables)
        # two threads can share the work of reading and that of the network
        with closing(made_ahead(blocks, int(settings.reconstruction.threads > 1))) as ahead:
            source = _Source(file, made, built.metadata, False, ahead)
            _reconstruct(settings, source, file, model, output, edm4hep)

    build_into(reconstruct, dataset.model_copy(update={"dataset": untold}), [file])


def _reconstruct(
    settings: ReconstructSettings,
    source: _Source,
    file: Path | None,
    model: Path,
    output: Path,
    edm4hep: Path,
) -> None:
    """Write the candidates of events, which come from ``file`` if they are in no table."""
    config = settings.reconstruction
    network = OnnxModel(model, config.threads, config.execution_providers, config.latents)
    _check_minimum(config.presence_min, network.presence_threshold, model)
    first = list(itertools.islice(source.blocks, 1))  # after which the metadata name collections
    copied_from = _copied_from(settings, file, source)
    _check_classes(settings, network.classes, model)
    metadata: dict[str, Any] = {
        "sample": source.metadata.get("sample"),
        "classes": network.classes,
        "presence_threshold": network.presence_threshold,
        "provenance": source.made.plain(),
    }
    if source.metadata.get("truth") == NO_TRUTH:
        metadata |= {name: source.metadata[name] for name in ("collections", "quarantined")}
    types = _types(source.metadata)
    if network.latent_width:
        types = with_latents(types, network.latent_width)
    whole = dataclasses.replace(source, blocks=_put_back(first, source.blocks))
    n_events = write_table(output, _reconstructed(settings, whole, network, types), types, metadata)
    write_particles(
        edm4hep,
        config.collection,
        output,
        network.classes,
        source.made.plain(),
        copied_from,
    )
    source.made.record(output, edm4hep, n_events=n_events)


def _put_back(taken: list[ak.Array], others: Iterator[ak.Array]) -> Iterator[ak.Array]:
    """Yield the blocks that were taken, which are then held no longer, and the others."""
    while taken:
        yield taken.pop(0)
    yield from others


def _types(source: Mapping[str, Any]) -> pa.Schema:
    """Return the columns to write, given the metadata of what is read."""
    without_truth = source.get("truth") == NO_TRUTH
    return with_origins(RECONSTRUCTED_SCHEMA) if without_truth else RECONSTRUCTED_SCHEMA


def _columns_read(source: Mapping[str, Any], has_split: bool) -> list[str]:
    """Return the columns to read, given the metadata of the table that has them."""
    header = [name for name in _types(source).names if name != schema.CANDIDATES.name]
    return [*header, "tracks", "clusters", *([schema.SPLIT.name] if has_split else [])]


def _copied_from(settings: ReconstructSettings, file: Path | None, source: _Source) -> Path | None:
    """Return the file whose collections are copied, None if none are; UserError if none can be."""
    if not settings.reconstruction.copy_collections or source.metadata.get("quarantined"):
        return None
    if file is None or is_delphes(file):
        raise UserError(
            f"{source.path}: is no EDM4hep file, whose collections could be copied; set"
            " reconstruction.copy_collections: false"
        )
    with Copies(file, sorted(referred_to(source.metadata))):
        return file


def _check_minimum(presence_min: float, threshold: float, model: Path) -> None:
    """Raise a UserError where candidates would be left out that lists of particles hold."""
    if presence_min > threshold:
        raise UserError(
            f"reconstruction.presence_min: {presence_min:g} is above the presence threshold of"
            f" {model}, {threshold:g}; set it to that at most"
        )


def _check_classes(
    settings: ReconstructSettings, classes: Sequence[Mapping[str, Any]], model: Path
) -> None:
    """Raise a UserError where a class id means another particle to the model than to truth."""
    known = [(c.name, c.pdg, c.charged) for c in settings.particle_classes]
    found = [(c["name"], c.get("pdg"), c.get("charged")) for c in classes[1:]]
    if known and known != found:
        raise UserError(
            f"{model}: classes: are {_shown(found)}, particle_classes of the detector's file"
            f" {_shown(known)}, in this order; train with these classes and export again"
        )


def _shown(classes: Sequence[tuple[str, int | None, bool | None]]) -> str:
    return ", ".join(f"{name} ({pdg})" for name, pdg, _ in classes)


def _reconstructed(
    settings: ReconstructSettings, source: _Source, network: OnnxModel, types: pa.Schema
) -> Iterator[pa.Table]:
    """Yield the candidates of the source's blocks, as ``types`` has them."""
    config = settings.reconstruction
    has_origins = schema.ORIGINS.name in types.names
    made_here = (schema.CANDIDATES.name, schema.LATENTS.name)
    header = [name for name in types.names if name not in made_here]
    for block in source.blocks:
        chosen = np.isin(ak.to_numpy(block.split), config.splits) if source.has_split else None
        events = block if chosen is None else block[chosen]
        check_elements(events, network.elements, source.path)
        elements = element_features(events, network.elements)
        check_finite(elements, network.elements, source.path)
        found = network.predict(elements, config.elements_per_batch)
        candidates = candidates_of(found, elements.n_elements, network.classes, config.presence_min)
        columns = {name: events[name] for name in header} | {schema.CANDIDATES.name: candidates}
        if has_origins:  # of the elements that became candidates
            columns[schema.ORIGINS.name] = events[schema.ORIGINS.name][candidates.element]
        if found.latents is not None:
            of_elements = ak.unflatten(found.latents, elements.n_elements)
            columns[schema.LATENTS.name] = of_elements[candidates.element]
        yield to_arrow(ak.zip(columns, depth_limit=1), types)
