"""What keeps ten thousand shards cheap: settings computed once, no folder searched for files,
shards in blocks.
"""

import ast
from pathlib import Path
from types import SimpleNamespace

from particleforge.config.settings import SelectSettings
from particleforge.orchestration.workflow import Workflow

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src/particleforge"
# stages whose inputs are many files; trainings list their own folders of checkpoints, which hold a
# few
DATA_STAGES = (
    "edm4hep",
    "simulation",
    "dataset",
    "selection",
    "preprocessing",
    "export",
    "reconstruction",
    "validation",
    "report",
)
OTHERS = (
    "tables/parquet.py",
    "tables/schema.py",
    "paths.py",
    "orchestration/workflow.py",
    "orchestration/files.py",
    "checks/dataset.py",
    "checks/statistics.py",
)
LISTING = {"glob", "iglob", "rglob", "iterdir", "listdir", "scandir", "walk", "glob_wildcards"}


def workflow(**simulation):
    return Workflow([ROOT / "config"], {"simulation": simulation, "detector": "clic"})


def job(shard="00000"):
    return SimpleNamespace(detector="clic", sample="ttbar", shard=shard)


def names_in(path):
    """Return the names that a module uses, attributes too."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    names |= {node.id for node in nodes if isinstance(node, ast.Name)}
    return names - ({"walk"} if "ast" in names else set())  # walks expressions, not folders


def test_data_stages_never_list_a_folder():
    of_stages = [path for stage in DATA_STAGES for path in (PACKAGE / stage).rglob("*.py")]
    scripts = sorted((ROOT / "workflow/scripts").glob("*.py"))
    assert len(of_stages) > 50
    assert len(scripts) > 10
    listing = {
        str(path.relative_to(ROOT)): names_in(path) & LISTING
        for path in [*of_stages, *(PACKAGE / name for name in OTHERS), *scripts]
    }
    assert not [path for path, names in listing.items() if names]


def test_rules_never_list_a_folder():
    text = "".join(
        path.read_text() for path in [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    )
    assert not [name for name in LISTING if f"{name}(" in text]


def test_jobs_of_a_sample_share_their_settings():
    run = workflow()
    for params in (run.simulate_settings(), run.settings(SelectSettings)):
        assert params(job("00000")) is params(job("00001"))
        assert params(job())["sample_name"] == "ttbar"


def test_shards_of_the_dataset_are_blocks_of_dataset_inputs():
    run = workflow(events_per_sample=25, events_per_shard=5, files_per_dataset_shard=2)
    blocks = [run.files.dataset_inputs(job(f"{number:05d}")) for number in range(3)]
    simulated = [path for path in run.files.every_shard(run.paths.simulated) if "/ttbar/" in path]
    assert [len(block) for block in blocks] == [2, 2, 2]
    assert [path for block in blocks for path in block] == simulated
    assert len(
        [path for path in run.files.every_shard(run.paths.selected) if "/ttbar/" in path]
    ) == len(blocks)


def test_more_events_leave_existing_shards_of_the_dataset_as_they_are():
    few, many = (
        workflow(events_per_sample=n, events_per_shard=5, files_per_dataset_shard=2)
        for n in (25, 60)
    )
    shards = [path for path in few.files.every_shard(few.paths.dataset) if "/ttbar/" in path]
    assert len(shards) == 3
    for shard in map(job, (Path(path).stem for path in shards)):
        assert few.files.dataset_inputs(shard) == many.files.dataset_inputs(shard)
