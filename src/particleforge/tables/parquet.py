"""Event tables in Parquet: Arrow schemas from ``schema``, atomic files, provenance inside.

Inputs -> outputs: awkward records (or Arrow tables) with the columns of ``schema`` -> Parquet
(zstd; training shards lz4), each page with a checksum, which is verified when it is read. Each
field, also the members of records, has ``description`` and ``unit`` (where it has one) as Arrow
metadata; the file's key-value metadata carries schema version, kind of table (``kind_of``) and what
shaped the file (``provenance``).
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import awkward as ak
import pyarrow as pa
import pyarrow.parquet as pq

from particleforge.artefacts import atomic_output
from particleforge.errors import UserError
from particleforge.stored import Stored, check_regular, held_to, refuse_kind
from particleforge.tables import schema

_SCALARS = {
    name: getattr(pa, name)()
    for name in ("int8", "int16", "int32", "uint32", "uint64", "float32", "float64", "string")
}
METADATA_KEY = b"particleforge"
ROW_GROUP_BYTES = 64 * 2**20  # decoded, about; 500 events of 30 000 hits would be 1.2 GB
NO_TRUTH = "none"  # value of the metadata's ``truth`` where the columns of truth are empty
DATASET, SELECTED, RECONSTRUCTED, SHARD = "dataset", "selected", "reconstructed", "shard"
_OTHER = "table"  # of values that no stage reads
_MADE_BY = {
    DATASET: "build_dataset",
    SELECTED: "select_events",
    RECONSTRUCTED: "reconstruct_events",
    SHARD: "write_shards",
}
_Model = TypeVar("_Model", bound=Stored)


def arrow_type(dtype: str) -> pa.DataType:
    """Return the Arrow type of a schema dtype such as ``float32`` or ``list<int8>``."""
    if dtype.startswith("list<"):
        return pa.list_(pa.field("element", _SCALARS[dtype[5:-1]], nullable=False))
    return _SCALARS[dtype]


def arrow_schema(
    fields: Sequence[schema.Field], collections: Sequence[schema.Collection] = ()
) -> pa.Schema:
    """Return the Arrow schema of event-level ``fields``, then list-of-record ``collections``."""
    columns = [_arrow_field(field) for field in fields]
    for collection in collections:
        record = pa.field(
            "element",
            pa.struct([_arrow_field(field) for field in collection.fields]),
            nullable=False,
        )
        described = {"description": collection.description}
        columns.append(
            pa.field(collection.name, pa.list_(record), nullable=False, metadata=described)
        )
    return pa.schema(columns)


def _arrow_field(field: schema.Field) -> pa.Field:
    described = {"description": field.description} | ({"unit": field.unit} if field.unit else {})
    return pa.field(field.name, arrow_type(field.dtype), nullable=False, metadata=described)


DATASET_SCHEMA = arrow_schema(schema.EVENT, schema.DATASET)
HITS_DATASET_SCHEMA = arrow_schema(schema.EVENT, schema.DATASET_OF_HITS)
SELECTED_SCHEMA = arrow_schema((*schema.EVENT, schema.SPLIT), schema.DATASET)
RECONSTRUCTED_SCHEMA = arrow_schema(schema.EVENT, schema.RECONSTRUCTED)


def with_origins(types: pa.Schema) -> pa.Schema:
    """Return the schema of a dataset without truth, or of what is reconstructed from one."""
    added = arrow_schema(schema.HEADER_OF_FILE, [schema.ORIGINS])
    return pa.schema([*types, *added])


def with_latents(types: pa.Schema, width: int) -> pa.Schema:
    """Return the schema of reconstructed events with ``width`` latents of each candidate."""
    latents = pa.list_(pa.field("element", pa.float16(), nullable=False), width)
    described = {"description": schema.LATENTS.description}
    column = pa.list_(pa.field("element", latents, nullable=False))
    return types.append(pa.field(schema.LATENTS.name, column, nullable=False, metadata=described))


SHARD_SCHEMA = arrow_schema(schema.SHARD)
_SCHEMAS = {
    DATASET: DATASET_SCHEMA,
    SELECTED: SELECTED_SCHEMA,
    RECONSTRUCTED: RECONSTRUCTED_SCHEMA,
    SHARD: SHARD_SCHEMA,
}
_HITS = HITS_DATASET_SCHEMA.field(schema.HITS.name)


def kind_of(types: pa.Schema) -> str:
    """Return what a table of these columns is."""
    names = set(types.names)
    if "target_p4" in names:
        return SHARD
    if schema.SPLIT.name in names:
        return SELECTED
    if names >= set(DATASET_SCHEMA.names):
        return DATASET
    return RECONSTRUCTED if names >= set(RECONSTRUCTED_SCHEMA.names) else _OTHER


def column_types(types: pa.Schema) -> dict[str, pa.DataType]:
    """Return the types of all columns by their paths in Parquet (``tracks.list.element.pt``).

    Members of records are among them.
    """
    found: dict[str, pa.DataType] = {}
    for field in types:
        is_list = pa.types.is_list(field.type)
        path, kind = (
            (f"{field.name}.list.element", field.type.value_type)
            if is_list
            else (field.name, field.type)
        )
        if pa.types.is_fixed_size_list(kind):
            path, kind = f"{path}.list.element", kind.value_type
        found |= (
            {f"{path}.{member.name}": member.type for member in kind}
            if pa.types.is_struct(kind)
            else {path: kind}
        )
    return found


def to_arrow(events: ak.Array, types: pa.Schema) -> pa.Table:
    """Cast awkward records to an Arrow table of the given types.

    A missing column is a KeyError.
    """
    columns = []
    for field in types:
        column = events[field.name]
        if pa.types.is_list(field.type) and pa.types.is_struct(field.type.value_type):
            column = ak.zip({m.name: column[m.name] for m in field.type.value_type}, depth_limit=2)
        array = ak.to_arrow(column, extensionarray=False, list_to32=True)
        columns.append(array.cast(field.type))
    return pa.Table.from_arrays(columns, schema=types)


def write_table(
    path: str | Path,
    batches: Iterable[pa.Table],
    types: pa.Schema,
    metadata: dict[str, Any],
    *,
    row_group_size: int = 500,
    **encoding: Any,
) -> int:
    """Stream ``batches`` into one Parquet file and return the number of rows.

    The file appears only when complete.

    ``metadata`` goes into the file as JSON under the key ``particleforge``; it is read after the
    last batch, so that a generator of batches can fill in what it found (sums over the file).
    ``encoding`` goes to ``pyarrow.parquet.ParquetWriter``. Integers and text are stored by
    dictionary; measured values hardly repeat, so that theirs would cost space and time
    (benchmarks/shard_format.py). A row group, which readers decode as one piece, has at most
    ``row_group_size`` events, and fewer where these take more than ``ROW_GROUP_BYTES``.
    """
    dictionaries = [
        path for path, kind in column_types(types).items() if not pa.types.is_floating(kind)
    ]
    encoding = {
        "compression": "zstd",
        "use_dictionary": dictionaries,
        "write_page_checksum": True,
        **encoding,
    }
    rows = 0
    with atomic_output(path) as temporary, pq.ParquetWriter(temporary, types, **encoding) as writer:
        for batch in batches:
            fitting = ROW_GROUP_BYTES * batch.num_rows // max(batch.nbytes, 1)
            size = min(max(fitting, 1), row_group_size)
            writer.write_table(batch.cast(types), row_group_size=size)
            rows += batch.num_rows
        stored = {
            "schema_version": schema.SCHEMA_VERSION,
            **metadata,
            "kind": kind_of(types),
        }
        writer.add_key_value_metadata(
            {METADATA_KEY: json.dumps(stored, sort_keys=True, allow_nan=False)}
        )
    return rows


def write_shard(path: str | Path, shard: pa.Table, metadata: dict[str, Any]) -> int:
    """Write a training shard with the compression that is read fastest.

    A shard is read once an epoch (benchmarks/shard_format.py).
    """
    return write_table(path, [shard], SHARD_SCHEMA, metadata, compression="lz4")


def read_metadata(path: str | Path, *kinds: str, judged: bool = True) -> dict[str, Any]:
    """Return what ``write_table`` stored under ``metadata``; a file without it is a UserError.

    So is a file of none of ``kinds``, if there are any, and one whose columns are not those of its
    kind, unless they are to be ``judged`` elsewhere.
    """
    try:
        check_regular(Path(path))
        footer = pq.ParquetFile(path)
        with footer:
            stored, types = (footer.metadata.metadata or {}).get(METADATA_KEY), footer.schema_arrow
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: not a readable Parquet file ({error}); delete it and rerun the stage that"
            " writes it"
        ) from error
    if stored is None:
        raise UserError(
            f"{path}: Parquet file was not written by particleforge; rebuild it with this workflow"
        )
    try:
        found: dict[str, Any] = json.loads(stored)
        version = found["schema_version"]
        # shards of older versions tell none, and trainings go on with them
        kind = found.get("kind", SHARD if kind_of(types) == SHARD else None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(
            f"{path}: its metadata are damaged ({error!r}); rerun the stage that writes it"
        ) from error
    if version != schema.SCHEMA_VERSION:
        raise UserError(
            f"{path}: schema version {version}, this package reads {schema.SCHEMA_VERSION};"
            " rebuild the file"
        )
    if kinds:
        makers = " or ".join(_MADE_BY[name] for name in kinds)
        remedy = f"give a file that {makers} wrote, or make this one again"
        if kind not in kinds:
            refuse_kind(path, kind, kinds, remedy)
        if judged and (problem := _unlike(types, kind)):
            raise UserError(f"{path}: {problem}; {remedy}")
    return found


def require_truth(path: str | Path, *kinds: str, judged: bool = True) -> dict[str, Any]:
    """Return metadata as ``read_metadata`` does; a table without truth is a UserError.

    That comes before its kind: to make a table of the kind asked for would need truth, too.
    """
    if read_metadata(path).get("truth") == NO_TRUTH:
        raise UserError(
            f"{path}: has no truth (dataset.truth: {NO_TRUTH}), so it can only be reconstructed;"
            " build it with dataset.truth: required from files that have particles and links"
        )
    return read_metadata(path, *kinds, judged=judged)


def described(path: Path, model: type[_Model], *, judged: bool = True) -> _Model:
    """Return the metadata of a table of the model's kind, held to the model."""
    return held_to(model, read_metadata(path, model.KIND, judged=judged), path)


def _unlike(types: pa.Schema, kind: str) -> str | None:
    """Return what of a table's columns is not as those of its kind, None if all are.

    Selected events may lack collections and members of them (``selection.drop_columns``), shards
    ``schema.MAY_LACK``.
    """
    for field in _SCHEMAS[kind]:
        position = types.get_field_index(field.name)
        if position < 0:
            if kind == SELECTED and pa.types.is_list(field.type):
                continue
            if kind == SHARD and field.name in schema.MAY_LACK:
                continue
            return f"column {field.name} is missing"
        found = types.field(position)
        wanted = (field, _HITS) if field.name == _HITS.name else (field,)
        same = any(found.equals(one, check_metadata=False) for one in wanted)
        if not (same or (kind == SELECTED and any(_is_skimmed(found, one) for one in wanted))):
            return f"column {field.name} has another type than that of a {kind} table"
    return None


def _is_skimmed(found: pa.Field, whole: pa.Field) -> bool:
    """Return whether a column of records has nothing but members of the whole one."""
    if not pa.types.is_list(found.type) or not pa.types.is_struct(found.type.value_type):
        return False
    members = {m.name: m.type for m in whole.type.value_type}
    return all(members.get(m.name) == m.type for m in found.type.value_type)


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> ak.Array:
    """Read a whole event table as awkward records; ``columns`` as ``["tracks", "event_id"]``."""
    read_metadata(path)
    return from_arrow(read_columns(path, columns))


def read_columns(path: str | Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read columns of a table, by default all; bytes that cannot be decoded are a UserError."""
    chosen = list(columns) if columns is not None else None
    with _decoding(path):
        return pq.read_table(path, columns=chosen, page_checksum_verification=True)


def check_columns(path: str | Path, columns: Iterable[str]) -> None:
    """Raise a UserError if a table lacks one of the columns, such as one that was dropped."""
    with _decoding(path):
        there = pq.read_schema(path).names
    missing = [name for name in columns if name.partition(".")[0] not in there]
    if missing:
        raise UserError(
            f"{path}: column {', '.join(missing)} is missing; rerun the stage that writes it,"
            " without dropping that (selection.drop_columns)"
        )


def n_events_in(path: str | Path) -> int:
    """Return the number of a table's rows; bytes that cannot be decoded are a UserError."""
    with _decoding(path):
        return int(pq.read_metadata(path).num_rows)


def iter_events(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[ak.Array]:
    """Yield an event table block by block, so that memory does not grow with the file.

    A block is a row group.

    Bytes that cannot be decoded are a UserError.
    """
    yield from map(from_arrow, iter_tables(path, columns))


def iter_tables(path: str | Path, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the row groups of an event table as Arrow tables.

    Bytes that cannot be decoded are a UserError.
    """
    chosen = list(columns) if columns is not None else None
    check_columns(path, chosen or ())
    with _decoding(path):
        table = pq.ParquetFile(path, page_checksum_verification=True)
    with table:
        for group in range(table.num_row_groups):
            with _decoding(path):
                block = table.read_row_group(group, columns=chosen)
            yield block


@contextmanager
def _decoding(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{path}: damaged Parquet file ({error}); delete it and rerun the stage that writes it"
        ) from error


def from_arrow(table: pa.Table) -> ak.Array:
    """Return an Arrow table as awkward records.

    The schemas forbid nulls, so no option types appear.
    """
    return ak.from_arrow(table)
