"""Files that were left out of the dataset are listed in the report, with reasons, and counted."""

from particleforge.pages.rendering import Rows
from particleforge.report.dataset import gather_data
from particleforge.tables import parquet

from .report_inputs import write_report_inputs

REASONS = {
    "b.root": "b.root: holds no 'events' tree <found: ntuple>",
    "c.root": "c.root: its md5 is 1, expected 2",
}


def test_quarantined_files_are_listed_and_counted(tmp_path):
    inputs = write_report_inputs(tmp_path, 30)
    chosen = inputs.dataset[1]
    metadata = parquet.read_metadata(chosen)
    sample = metadata["provenance"]["settings"]["sample_name"]
    metadata["quarantined"] = [{"file": name, "reason": reason} for name, reason in REASONS.items()]
    parquet.write_table(
        chosen,
        [parquet.to_arrow(parquet.read_table(chosen), parquet.DATASET_SCHEMA)],
        parquet.DATASET_SCHEMA,
        metadata,
    )
    found = gather_data(
        dataset=inputs.dataset,
        selected=inputs.selected,
        manifest=inputs.manifest,
        cutflow_table=inputs.cutflow_table,
        cutflow_plot=inputs.cutflow_plot,
    )
    assert found.quarantined == Rows(
        ("sample", "shard", "file", "why it was left out"),
        [(sample, chosen.name, name, reason) for name, reason in REASONS.items()],
    )
    column = found.samples.heads.index("files left out")
    assert {row[0]: row[column] for row in found.samples.rows} == {
        "qq": "0",
        "ttbar": "0",
        "ww": "0",
    } | {sample: "2"}
