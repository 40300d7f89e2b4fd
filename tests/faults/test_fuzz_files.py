"""More than 500 broken files of every format: each gives sound rows or one line, no traceback, and
none hangs or asks for absurd memory.
"""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.tables.parquet import read_metadata, read_table

from ..unit.dataset_settings import dataset_settings
from .fuzzing import BYTES, FORMATS, TOLERANT, Case, Worker, cases, content_of, mutated, write

pytestmark = pytest.mark.integration
SECONDS = 30  # for one file of two events, on a busy machine
WORKERS = 2


def outcomes(chosen: list[Case]) -> dict[Case, tuple[str, str]]:
    """Build the dataset of every case, in as many processes as ``WORKERS``."""

    def work(mine: list[Case]) -> dict[Case, tuple[str, str]]:
        worker = Worker(SECONDS)
        try:
            return {case: worker.ask(case) for case in mine}
        finally:
            worker.close()

    with ThreadPoolExecutor(WORKERS) as pool:
        parts = pool.map(work, (chosen[i::WORKERS] for i in range(WORKERS)))
        return {case: found for part in parts for case, found in part.items()}


@pytest.fixture(scope="module")
def found() -> dict[Case, tuple[str, str]]:
    return outcomes(cases())


@pytest.mark.fault("damaged bytes in a ROOT file")
def test_every_broken_file_gives_sound_rows_or_one_line(found):
    assert len(found) > 500
    bad = {case: said for case, (what, said) in found.items() if what in ("wrong", "hung", "died")}
    assert not bad, "\n".join(f"{case}: {said}" for case, said in bad.items())


@pytest.mark.fault("damaged bytes in a ROOT file")
def test_the_mutations_break_something(found):
    of_bytes = Counter(what for (_, mutation, _), (what, _) in found.items() if mutation in BYTES)
    assert of_bytes["refused"] > of_bytes.total() / 3
    assert Counter(what for what, _ in found.values())["not written"] < 0.1 * len(found)
    for kind in FORMATS:
        for number in range(10):
            what, said = found[kind, "truncated", number]
            assert what == "refused", (kind, number)
            assert "ROOT file" in said or "holds no 'events' tree" in said, said
        for number in range(BYTES["no ROOT file"][0]):
            assert found[kind, "no ROOT file", number][0] == "refused", (kind, number)


@pytest.mark.fault("unreadable file set aside")
def test_files_set_aside_leave_the_rows_of_the_others_as_they_are(tmp_path):
    for run in (1, 2):
        content = content_of("edm4hep-rntuple")
        content["EventHeader.runNumber"] = (
            [[run]] * len(content["EventHeader.runNumber"][0]),
            np.uint32,
        )
        write("edm4hep-rntuple", content, tmp_path / f"good{run}.root")
    for number, mutation in enumerate(("truncated", "overwritten", "moved")):
        mutated(("edm4hep-ttree", mutation, number), tmp_path / f"bad{number}.root")
    mutated(("edm4hep-ttree", "another tree", 0), tmp_path / "bad3.root")
    settings = dataset_settings(
        dataset=DatasetConfig(**{**TOLERANT.model_dump(), "on_bad_file": "quarantine"})
    )
    good = [tmp_path / "good1.root", tmp_path / "good2.root"]
    bad = [tmp_path / f"bad{number}.root" for number in range(4)]
    build_dataset(settings, good, tmp_path / "good.parquet")
    build_dataset(
        settings, [bad[0], good[0], bad[1], bad[2], good[1], bad[3]], tmp_path / "all.parquet"
    )
    assert (
        read_table(tmp_path / "all.parquet").tolist()
        == read_table(tmp_path / "good.parquet").tolist()
    )
    assert len(read_table(tmp_path / "all.parquet")) == 4
    set_aside = read_metadata(tmp_path / "all.parquet")["quarantined"]
    assert {entry["file"] for entry in set_aside} == {path.name for path in bad}
    assert all(entry["reason"].startswith(entry["file"]) for entry in set_aside)
