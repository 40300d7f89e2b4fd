"""Files are edited while a run on this machine is under way."""

import pytest
from chain import Chain
from edits import AS_STARTED, SIZE, STOPPED, TARGET, package_that_edits, settings_used


@pytest.mark.fault("configuration edited while a run is under way")
@pytest.mark.fault("code edited while a run is under way")
def test_files_edited_under_way(tmp_path, monkeypatch):
    chain = Chain.new(tmp_path / "run")
    package_that_edits(chain, tmp_path, monkeypatch)
    text = chain.run(TARGET, config=SIZE, check=False)
    assert settings_used(chain) == AS_STARTED
    assert STOPPED in text
    assert not (chain.folder / TARGET).exists()
