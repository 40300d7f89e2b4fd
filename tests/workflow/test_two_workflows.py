"""Two workflows of two working folders, which know nothing of each other's locks, on one results
folder and one study.
"""

import json
import shutil
import subprocess
import time

import pytest
from chain import PATIENCE_S, Chain, environment


def slots(results):
    return {
        str(path.relative_to(results)): json.loads(path.read_text())
        for path in (results / "hpo/slots").glob("*/[0-9].json")
    }


@pytest.mark.fault("two workflows on one study")
def test_two_workflows_on_one_search(chain, tmp_path):
    first, second = chain.copy(tmp_path / "first"), Chain.new(tmp_path / "second")
    shared = tmp_path / "results"
    shutil.move(first.folder / "results", shared)
    shutil.rmtree(shared / "clic/hpo")
    config = (f"results_dir={shared}",)
    with (tmp_path / "first.log").open("w") as log:
        command = first.command("hpo", config=config)
        process = subprocess.Popen(
            command, cwd=first.folder, stdout=log, stderr=subprocess.STDOUT, env=environment()
        )
        try:
            while not (shared / "clic/hpo/work").is_dir() and process.poll() is None:
                time.sleep(0.05)
            text = second.run("hpo", config=config, check=False)
            assert process.wait(PATIENCE_S) == 0, (tmp_path / "first.log").read_text()[-4000:]
        finally:
            process.kill()
            process.wait()
    assert "another workflow works in this results folder; wait for it or end it" in text
    assert "Finished jobid" not in text
    found, expected = slots(shared / "clic"), slots(chain.results)
    assert found.keys() == expected.keys()
    assert sorted(slot["trial"] for slot in found.values()) == list(range(len(found))), (
        "a slot was tried twice"
    )
    assert {name: slot["value"] for name, slot in found.items()} == {
        name: slot["value"] for name, slot in expected.items()
    }
