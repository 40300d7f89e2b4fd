"""Files are edited while a run on Slurm is under way, whose jobs parse the workflow anew."""

import pytest
from chain import Chain
from edits import AS_STARTED, SIZE, STOPPED, TARGET, package_that_edits, settings_used


@pytest.mark.fault("configuration edited while a run is under way")
@pytest.mark.fault("code edited while a run is under way")
def test_files_edited_under_way(cluster, tmp_path, monkeypatch):
    chain = Chain.new(tmp_path / "run")
    package_that_edits(chain, tmp_path, monkeypatch)
    text = cluster.snakemake(chain, TARGET, "--retries", "0", config=SIZE, check=False)
    assert settings_used(chain) == AS_STARTED
    assert STOPPED.removeprefix("error: ") in text
    assert not (chain.folder / TARGET).exists()
