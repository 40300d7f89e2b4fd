"""The notebook of examples: it runs on results as a run leaves them, and has outputs of its own."""

import json
from pathlib import Path
from typing import Any

import pytest

from particleforge.config.load import load_run
from particleforge.config.settings import ReconstructSettings
from particleforge.reconstruction.reconstruct import reconstruct_events

from ..unit.small_results import SAMPLES, make_results

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "examples/notebooks/first_look.ipynb"
SIZE_MAX = 200_000


def cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def pictures(notebook: Any) -> int:
    outputs = [output for cell in cells(notebook) for output in cell["outputs"]]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_its_outputs_are_stored_in_order() -> None:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    numbers = [cell["execution_count"] for cell in cells(notebook)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert pictures(notebook) == 2
    kinds = {output["output_type"] for cell in cells(notebook) for output in cell["outputs"]}
    assert kinds <= {"execute_result", "display_data"}, "an error or a warning is stored"
    assert NOTEBOOK.stat().st_size <= SIZE_MAX


@pytest.mark.filterwarnings("ignore")  # of the kernel's own packages
def test_it_runs(tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    results = make_results(tmp_path) / "results/clic"
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    run = load_run(ROOT / "config", {"preset": "smoke"})
    for sample in SAMPLES:
        reconstruct_events(
            ReconstructSettings(reconstruction=run.reconstruction),
            events=results / f"select/{sample}/00000.parquet",
            model=ROOT / "examples/models/clic/model.onnx",
            output=results / f"reco/{sample}/00000.parquet",
            edm4hep=results / f"reco/{sample}/00000.root",
        )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, kernel_name="python3", resources=where).execute()
    assert pictures(notebook) == 2
