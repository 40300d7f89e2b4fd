"""Build the dataset: EDM4hep or Delphes ROOT files -> one Parquet row per event.

A row holds truth and baseline candidates, too.

Inputs -> outputs: ROOT files, simulated here or given (``settings.files``) -> Parquet of
``parquet.DATASET_SCHEMA``, or ``HITS_DATASET_SCHEMA`` with hits as elements. Its metadata holds the
energy balance (GeV) and counts of what was left out, in sum and for each file, and files that were
quarantined.

Files are read and written ``settings.dataset.chunk_events`` at a time, so memory does not grow with
them. A file that cannot be read, or has not the checksum that it should have, fails the build, or,
with ``on_bad_file: quarantine``, is left out altogether: when it breaks after some of its events
were written, the output is begun again without it.

Invariants: the energy balance closes to 1e-6 of the visible energy; event identities do not repeat;
the same settings and inputs give the same bytes.
"""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from particleforge.config.collections import spelled
from particleforge.config.settings import DatasetSettings, FilesSettings
from particleforge.dataset.ancestry import Bending
from particleforge.dataset.balance import Balance
from particleforge.dataset.candidates import baseline_candidates
from particleforge.dataset.elements import acceptance_abs_eta, hits_as_clusters, valid_events
from particleforge.dataset.gates import BadFileError, FileTally, account
from particleforge.dataset.identity import content_of, event_ids
from particleforge.dataset.no_truth import add_collections, no_truth, origin_columns
from particleforge.dataset.status import Decays, settled
from particleforge.dataset.truth import build_truth
from particleforge.edm4hep.constants import GEV_PER_TESLA_MM
from particleforge.edm4hep.raw_events import Array, RawEvents, Table
from particleforge.errors import UserError
from particleforge.inputs.checksums import verify_checksum
from particleforge.inputs.formats import read_chunks
from particleforge.progress import shown
from particleforge.provenance.record import Provenance
from particleforge.stored import check_regular
from particleforge.tables import parquet

log = logging.getLogger(__name__)

_REPEATED_NUMBERS = "run and event numbers repeat between files; build one dataset for each file"
_REPEATED = f"{_REPEATED_NUMBERS}, or set simulation.backend: files"
_REPEATED_CONTENT = (
    "events occur twice, with the same numbers and particles; take the doubled file out, or number"
    " those that look alike"
)


@dataclass(frozen=True)
class Built:
    """A dataset that is made while its ``tables`` are taken; ``metadata`` is whole after these."""

    made: Provenance
    types: pa.Schema
    metadata: dict[str, Any]
    tables: Iterator[pa.Table]


class _NotFiniteError(Exception):
    """A value that cannot be stored; carries what it is."""


def build_dataset(settings: DatasetSettings, inputs: Sequence[Path], output: Path) -> None:
    """Write the dataset of ``inputs`` to ``output``.

    Raises UserError if an input cannot be used or holds too many values that are no numbers (unless
    quarantined), or if too much visible energy finds no element.
    """

    def write(built: Built) -> None:
        rows = parquet.write_table(output, built.tables, built.types, built.metadata)
        balance = built.metadata.get("energy_balance_gev", "no truth")
        log.info("dataset: %d events, %s", rows, balance)
        built.made.record(output, n_events=rows)

    build_into(write, settings, inputs)


def build_into(
    consume: Callable[[Built], None], settings: DatasetSettings, inputs: Sequence[Path]
) -> None:
    """Give the dataset of ``inputs`` to ``consume``, table by table.

    It is given again, from the beginning, without a file that has to be quarantined meanwhile.
    Raises what ``build_dataset`` does.
    """
    if not inputs:
        raise UserError("build-dataset: no input file; give at least one EDM4hep ROOT file")
    quarantined: dict[Path, str] = {}
    verified: set[Path] = set()
    while True:
        good = [Path(path) for path in inputs if Path(path) not in quarantined]
        try:
            _verify(settings, inputs, good, verified)
            consume(_built(settings, good, quarantined))
        except BadFileError as bad:
            if settings.dataset.on_bad_file == "fail":
                raise UserError(bad.reason) from bad
            log.warning("%s (quarantined: its events are left out)", bad.reason)
            quarantined[bad.path] = bad.reason
            continue
        break


def refusal(settings: DatasetSettings, path: Path, n_events_max: int | None) -> str | None:
    """Return the line with which a given file would be refused, or None if it would not.

    All events, or the first ``n_events_max``, go through the whole stage; nothing is written.
    """
    given = (settings.files or FilesSettings()).model_copy(
        update={"events_per_file_max": n_events_max}
    )
    try:
        for _ in _batches(settings.model_copy(update={"files": given}), [path], {}):
            pass
    except (BadFileError, UserError) as error:
        return str(error)
    return None


def to_table(columns: dict[str, Table | Array], types: pa.Schema) -> pa.Table:
    """Return event columns and tables as an Arrow table of ``types``.

    Values are cast to its types; one that is not finite then is a _NotFiniteError.
    """
    arrays = []
    for field in types:
        column = columns[field.name]
        if isinstance(column, Table):
            members = [
                _cast(column[m.name], m.type, f"{field.name}.{m.name}")
                for m in field.type.value_type
            ]
            struct = pa.StructArray.from_arrays(members, fields=list(field.type.value_type))
            arrays.append(
                pa.ListArray.from_arrays(column.offsets.astype(np.int32), struct, type=field.type)
            )
        else:
            arrays.append(_cast(column, field.type, field.name))
    return pa.Table.from_arrays(arrays, schema=types)


def _cast(values: Array, kind: pa.DataType, name: str) -> pa.Array:
    with np.errstate(over="ignore"):
        cast = values.astype(kind.to_pandas_dtype())
    if number := int(np.sum(~np.isfinite(cast))):
        raise _NotFiniteError(f"{name}: {number} values are not finite as {kind}")
    return pa.array(cast)


def _verify(
    settings: DatasetSettings, inputs: Sequence[Path], good: Sequence[Path], verified: set[Path]
) -> None:
    """Check that each file not yet ``verified`` can be read and has its checksum."""
    checksums = settings.files.checksums if settings.files else ()
    known = dict(zip(map(Path, inputs), checksums, strict=True)) if checksums else {}
    for path in good:
        if path in verified:
            continue
        try:
            check_regular(path)
            path.open("rb").close()
            if expected := known.get(path):
                verify_checksum(path, expected)
        except OSError as error:
            raise BadFileError(
                path,
                f"{path}: cannot be read ({error.strerror}); check the path and its permissions",
            ) from error
        except UserError as error:
            raise BadFileError(path, str(error)) from error
        verified.add(path)


def _built(
    settings: DatasetSettings, inputs: Sequence[Path], quarantined: dict[Path, str]
) -> Built:
    """Return the dataset of ``inputs``, not yet read."""
    made = Provenance.of("build_dataset", settings.plain(), inputs)
    metadata: dict[str, Any] = {
        "provenance": made.plain(),
        "quarantined": [
            {"file": path.name, "reason": reason.replace(str(path), path.name)}
            for path, reason in quarantined.items()
        ],
    }
    if not settings.dataset.reads_truth:
        metadata |= {"truth": parquet.NO_TRUTH, "collections": {}}
    return Built(made, _schema(settings), metadata, _batches(settings, inputs, metadata))


def _batches(
    settings: DatasetSettings, inputs: Sequence[Path], metadata: dict[str, Any]
) -> Iterator[pa.Table]:
    """Yield the inputs' events as Arrow tables; fill in balance and counts at the end."""
    truth = settings.dataset.reads_truth
    balance, counts, files = Balance(), Counter({"events": 0}), []
    seen: list[Array] = []
    for path in inputs:
        tally = FileTally(path, settings)
        for raw in shown(_chunks(settings, path), "event", size=lambda raw: raw.n_events):
            try:
                table = _table(settings, raw, tally)
            except _NotFiniteError as error:
                raise BadFileError(path, f"{path}: {error}; simulate it again") from error
            seen.append(table["event_id"].to_numpy())
            if not truth:
                add_collections(metadata.setdefault("collections", {}), raw, str(path))
            yield table
        tally.judge()
        balance.add(tally.balance)
        counts.update({"events": tally.n_events, **tally.left_out})
        files.append(tally.plain())
    names = ", ".join(path.name for path in inputs)
    if len(np.unique(np.concatenate([np.zeros(0, np.uint64), *seen]))) < counts["events"]:
        of_numbers = _REPEATED_NUMBERS if not truth else _REPEATED
        raise UserError(f"{names}: {_REPEATED_CONTENT if truth and settings.files else of_numbers}")
    metadata |= {**account(balance, counts, truth), "files": files}


def _chunks(settings: DatasetSettings, path: Path) -> Iterator[RawEvents]:
    try:
        for raw in read_chunks(path, settings):
            if settings.dataset.calorimeter_elements == "hits" and not _has_hits(raw, settings):
                raise UserError(
                    f"{path}: no calorimeter hits with links to particles; correct the detector's"
                    " 'collections', or set dataset.calorimeter_elements: clusters"
                )
            if settings.dataset.calorimeter_elements == "clusters" and not raw.more_than_hits:
                names = settings.collections
                raise UserError(
                    f"{path}: neither {spelled(names.tracks)} nor {spelled(names.clusters)} is"
                    " there, only calorimeter hits; correct the detector's 'collections', or set"
                    " dataset.calorimeter_elements: hits"
                )
            yield raw
    except UserError as error:
        raise BadFileError(path, str(error)) from error


def _has_hits(raw: RawEvents, settings: DatasetSettings) -> bool:
    """Tell whether a file has hits that can be elements, with truth if that is read."""
    if settings.dataset.reads_truth or raw.origin is None:
        return raw.linked_hits
    return any(meaning == "hit" for _, meaning in raw.origin.collections.values())


def _table(settings: DatasetSettings, raw: RawEvents, tally: FileTally) -> pa.Table:
    """Return a chunk's rows, and add it to its file's tally."""
    with_truth, decays = settings.dataset.reads_truth, Decays()
    if with_truth:
        particles, decays = settled(raw.particles, raw.parents)
        raw = replace(raw, particles=particles)
    content = content_of(raw.particles) if settings.files and with_truth else None
    if settings.dataset.calorimeter_elements == "hits":
        raw = hits_as_clusters(raw, settings.dataset.hit_energy_min_mev / 1000)
    events = valid_events(raw, settings.b_field_tesla, settings.calorimeter, settings.cluster_shape)
    truth = (
        build_truth(
            events,
            settings.dataset,
            settings.particle_classes,
            acceptance_abs_eta(settings.calorimeter),
            Bending(
                GEV_PER_TESLA_MM * settings.b_field_tesla,
                settings.calorimeter.ecal.barrel_inner_radius_mm,
            ),
        )
        if with_truth
        else no_truth(events.n_events)
    )
    columns: dict[str, Table | Array] = {
        "event_id": event_ids(
            settings.sample_name,
            events.run_number,
            events.event_number if content is None else events.own_number,
            content,
        ),
        "run_number": events.run_number,
        "event_number": events.event_number,
        "weight": events.weight,
        "tracks": events.tracks,
        "clusters": events.clusters,
        "particles": truth.particles,
        "targets": truth.targets,
        "track_links": truth.track_links,
        "cluster_links": truth.cluster_links,
        "candidates": baseline_candidates(events, settings.particle_classes),
        **({} if with_truth else origin_columns(events)),
    }
    tally.add(raw, events, truth.balance, decays)
    return to_table(columns, _schema(settings))


def _schema(settings: DatasetSettings) -> pa.Schema:
    hits = settings.dataset.calorimeter_elements == "hits"
    types = parquet.HITS_DATASET_SCHEMA if hits else parquet.DATASET_SCHEMA
    return types if settings.dataset.reads_truth else parquet.with_origins(types)
