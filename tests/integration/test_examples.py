"""What examples/python and examples/cpp find, without this package, is what the package finds."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import awkward as ak
import numpy as np
import onnxruntime
import pytest

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import ReconstructSettings, dataset_settings, simulate_settings
from particleforge.errors import UserError
from particleforge.reconstruction.onnx_model import OnnxModel
from particleforge.reconstruction.reconstruct import reconstruct_file
from particleforge.simulation.simulate import simulate_events
from particleforge.tables.parquet import read_table

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MODEL = EXAMPLES / "models" / "clic" / "model.onnx"
N_EVENTS = 3
COLUMNS = ("element", "class_id", "pdg", "charge", "px", "py", "pz", "energy", "weight")
# the script as __main__, in a process that tells whether it loaded the package
_RUN = """
import runpy, sys
sys.path.insert(0, sys.argv[1].rpartition("/")[0])
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert not [name for name in sys.modules if name.startswith("particleforge")]
"""


class Found(NamedTuple):
    """A file's candidates, of the package and of the example, and what the example printed."""

    expected: ak.Array
    candidates: dict[str, np.ndarray]
    inputs: Path
    printed: str


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("examples")
    run = load_run(ROOT / "config", {"simulation": {"events_per_shard": N_EVENTS}})
    detector = load_detector(ROOT / "config", "clic")
    file, output = folder / "sim.root", folder / "reco.parquet"
    simulate_events(simulate_settings(run, detector, "qq"), "00000", file)
    reconstruct_file(
        ReconstructSettings.of(run, detector),
        dataset_settings(run, detector, "files"),
        file,
        model=MODEL,
        output=output,
        edm4hep=folder / "reco.root",
    )
    script = str(EXAMPLES / "python" / "reconstruct.py")
    files = [folder / name for name in ("candidates.npz", "inputs.bin")]
    done = subprocess.run(
        [sys.executable, "-c", _RUN, script, MODEL, file, *files],
        capture_output=True,
        text=True,
        check=True,
    )
    with np.load(files[0]) as columns:
        candidates = {name: columns[name] for name in columns.files}
    return Found(read_table(output).candidates, candidates, files[1], done.stdout)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES / "python")
    spec = importlib.util.spec_from_file_location("_example", EXAMPLES / "python/reconstruct.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_python_finds_the_same_candidates(found: Found) -> None:
    counts = ak.num(found.expected).to_list()
    assert np.bincount(found.candidates["event"], minlength=N_EVENTS).tolist() == counts
    assert min(counts) > 10
    for name in COLUMNS:
        np.testing.assert_allclose(
            found.candidates[name],
            ak.to_numpy(ak.flatten(found.expected[name])),
            rtol=2e-4,
            atol=2e-4,
            err_msg=name,
        )
    energy = ak.sum(found.expected.energy * found.expected.weight, axis=1)
    assert [float(line.split()[-2]) for line in found.printed.splitlines()] == pytest.approx(
        energy.to_list(), rel=1e-4
    )


@pytest.mark.parametrize("lengths", [[0], [0, 2], [2, 0]])
def test_python_knows_events_without_elements(example: ModuleType, lengths: list[int]) -> None:
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    events = [(np.ones((n, 27), np.float32), np.ones(n, np.int64)) for n in lengths]
    outputs = session.run(["class_scores", "charge", "p4", "weight"], example.padded(events))
    weight = outputs[-1]
    assert weight.shape == (len(lengths), max(lengths))
    assert (weight > 0).sum(axis=1).tolist() == lengths
    candidates = example.candidates_of(outputs, [{}] * outputs[0].shape[-1])
    assert lengths[0] == 0 or set(candidates["event"]) <= {0}
    assert max(lengths) or not len(candidates["weight"])


def test_a_model_of_floats_alone_says_the_same(tmp_path: Path) -> None:
    script, changed = EXAMPLES / "python" / "float_interface.py", tmp_path / "floats.onnx"
    subprocess.run([sys.executable, script, MODEL, changed, "9"], check=True)
    rng = np.random.default_rng(3)
    features = rng.lognormal(0, 1, (2, 9, 27)).astype(np.float32)
    types = np.array([[1, 1, 1, 2, 2, 2, 2, 2, 2], [1, 2, 2, 2, 2, 0, 0, 0, 0]])
    outputs = {}
    for path, kind in ((MODEL, np.int64), (changed, np.float32)):
        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        feed = {"features": features, "element_type": types.astype(kind)}
        outputs[kind] = session.run(["class_scores", "charge", "p4", "weight"], feed)
    assert {found.dtype for found in outputs[np.float32]} == {np.dtype(np.float32)}
    assert outputs[np.int64][1].any()  # charges
    for before, after in zip(*outputs.values(), strict=True):
        np.testing.assert_array_equal(before, after)
    with pytest.raises(UserError, match=f"{changed.name}.*export"):
        OnnxModel(changed, threads=1)


@pytest.mark.skipif(
    not os.environ.get("ONNXRUNTIME_ROOT"),
    reason="ONNXRUNTIME_ROOT names no folder with ONNX Runtime's headers and library",
)
@pytest.mark.skipif(not shutil.which("cmake") or not shutil.which("c++"), reason="no C++ compiler")
def test_cpp_finds_the_same_candidates(found: Found, tmp_path: Path) -> None:
    for command in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", tmp_path],
        ["cmake", "--build", tmp_path],
    ):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    done = subprocess.run(
        [tmp_path / "reconstruct", MODEL, found.inputs], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    printed = np.array([line.split() for line in done.stdout.splitlines()], float)
    for column, name in enumerate(("event", *(name for name in COLUMNS if name != "pdg"))):
        np.testing.assert_allclose(
            printed[:, column], found.candidates[name], rtol=1e-4, atol=1e-4, err_msg=name
        )
    threshold = 0.45  # the model card's
    assert printed[:, -1].tolist() == (found.candidates["weight"] >= threshold).tolist()
