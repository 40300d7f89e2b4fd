"""The report's section on the checks of the data."""

from pathlib import Path

import pytest

from particleforge.artefacts import write_json
from particleforge.checks.verdict import Verdict
from particleforge.report.checks import gather_checks

from .checked_data import (
    judge_sample,
    judge_samples,
    judge_shards,
    write_sample,
    write_training_shards,
)
from .report_inputs import SAMPLES


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("checked")
    for sample in SAMPLES:
        judge_sample(folder, write_sample(folder, sample, sizes=(20, 30)))
    dataset = judge_samples(
        folder, [folder / f"checks/dataset/{sample}.json" for sample in SAMPLES]
    )
    return dataset, judge_shards(write_training_shards(folder, 60))


def test_every_sample_and_the_shards_have_their_checks(verdicts: tuple[Path, Path]) -> None:
    found = gather_checks(*verdicts)
    parts = [*(f"sample {name}" for name in SAMPLES), "between samples", "training shards"]
    assert [row[0] for row in found.summary.rows] == [part.title for part in found.parts] == parts
    assert all((row[-2], row[-1]) == ("0", "yes") for row in found.summary.rows)
    assert [row[1:3] for row in found.summary.rows] == [("50", "2")] * 3 + [
        ("150", "-"),
        ("60", "3"),
    ]
    assert found.verdict.endswith("values that were compared keep to their limits.")
    for part, row in zip(found.parts, found.summary.rows, strict=True):
        assert str(len(part.rows.rows)) == row[3]
        assert all(len(cells) == len(part.rows.heads) for cells in part.rows.rows)
    rows = {cells[0]: cells for cells in found.parts[0].rows.rows}
    assert rows["value beyond energy_max_gev"][5].startswith("qq/0000")
    assert float(rows["value beyond energy_max_gev"][3]) < 1e5
    assert rows["values not finite"][1:] == (
        "yes",
        rows["values not finite"][2],
        "0",
        "at most 0",
        "-",
        "-",
    )
    assert rows["value beyond energy_max_gev"][4] in ("0 to 100000", "-100000 to 100000")


def test_what_failed_is_told(verdicts: tuple[Path, Path], tmp_path: Path) -> None:
    verdict = Verdict()
    verdict.at_most("values not finite:", "train/00003.parquet", "track.pt", 4, 0, "")
    write_json(
        tmp_path / "shards.json",
        {
            "kind": "verdict",
            "splits": {"train": {"events": 5, "shards": 4}},
            **verdict.plain(),
        },
    )
    found = gather_checks(verdicts[0], tmp_path / "shards.json")
    assert found.verdict == "Some values are not allowed."
    assert found.summary.rows[-1] == ("training shards", "5", "4", "1", "1", "1", "no")
    assert found.parts[-1].rows.rows == [
        ("values not finite", "no", "1", "4", "at most 0", "train/00003.parquet", "track.pt")
    ]
