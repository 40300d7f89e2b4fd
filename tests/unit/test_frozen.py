"""What a run was started with: its jobs get that configuration, and stop at other code."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.orchestration.lock import ResultsLock
from particleforge.orchestration.workflow import Workflow
from particleforge.provenance import started
from particleforge.provenance.lineage import read_lineage, verify_lineage
from particleforge.provenance.record import Provenance
from particleforge.training import train
from particleforge.training.spec import TrainingResult

CONFIG = Path(__file__).parents[2] / "config"
PRESETS = sorted(path.stem for path in (CONFIG / "presets").glob("*.yaml"))


class Snakemake:
    """What the head asks of Snakemake's workflow, with the ``--config`` that jobs get of it."""

    def __init__(self, folder: Path, *, is_main_process: bool = True) -> None:
        self.is_main_process = is_main_process
        self.config_settings = SimpleNamespace(config={}, config_args=[])
        file = SimpleNamespace(get_path_or_uri=lambda secret_free: str(folder / "Snakefile"))
        self.included = [file]

    def config_of_jobs(self) -> dict[str, str]:
        pairs = (item.partition("=") for item in self.config_settings.config_args)
        return {key: value.strip("'") for key, _, value in pairs}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a small package in place of this one, beside a Snakefile; nothing else is code."""
    folder = tmp_path / "src/package"
    folder.mkdir(parents=True)
    for name in ("a.py", "b.py", "page.css"):
        (folder / name).write_text(name)
    (tmp_path / "Snakefile").write_text("rule all:\n")
    monkeypatch.setattr(started, "_PACKAGE", folder)
    monkeypatch.setattr(ResultsLock, "take", lambda _: None)  # heads of one process
    monkeypatch.setenv(started.TICKET_VARIABLE, "none")  # so that it is as before in the end
    return folder


def begun(folder: Path, config: Path = CONFIG, **overrides: object) -> tuple[Workflow, dict]:
    """Return a head that began a run, and the ``--config`` of its jobs."""
    snakemake = Snakemake(folder)
    head = Workflow([config], {"results_dir": str(folder / "some results"), **overrides})
    head.freeze(snakemake)
    head.hold_results()
    return head, snakemake.config_of_jobs()


def in_order(workflow: Workflow) -> str:
    """Return all of a configuration as text, which the order of samples and the like changes."""
    blocks = [workflow.run, *workflow.detectors.values()]
    return json.dumps(
        [list(workflow.detectors), *(block.model_dump(mode="json") for block in blocks)]
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_a_job_has_the_configuration_of_the_head(preset: str, package: Path, tmp_path: Path):
    head, config = begun(tmp_path, preset=preset, detector="clic,cms_like")
    job = Workflow([tmp_path / "nowhere"], config)
    assert (job.run, job.detectors) == (head.run, head.detectors)
    assert in_order(job) == in_order(head)


def test_a_published_data_set_reaches_the_jobs(package: Path, tmp_path: Path):
    config = tmp_path / "config"
    shutil.copytree(CONFIG, config)
    (tmp_path / "a.root").touch()
    shipped = next((config / "published").glob("*.yaml"))
    content = yaml.safe_load(shipped.read_text())
    (first,) = list(content["samples"])[:1]
    content["samples"] = {first: content["samples"][first] | {"files": [f"{tmp_path}/a.root"]}}
    shipped.write_text(yaml.safe_dump(content))
    simulation = {"backend": "files", "published": shipped.stem}
    detector = content["detector"]
    head, config_of_jobs = begun(tmp_path, config, detector=detector, simulation=simulation)
    shutil.rmtree(config)
    assert in_order(Workflow([config], config_of_jobs)) == in_order(head)


def test_nothing_is_written_before_the_run_starts(package: Path, tmp_path: Path):
    head = Workflow([CONFIG], {"results_dir": str(tmp_path / "results")})
    head.freeze(Snakemake(tmp_path))
    assert not (tmp_path / "results").exists()


@pytest.mark.fault("job of a run that is over")
def test_a_job_of_an_earlier_run_stops(package: Path, tmp_path: Path):
    _, config = begun(tmp_path, seed=1)
    begun(tmp_path, seed=1)
    Workflow([CONFIG], config)  # started again as it was
    begun(tmp_path, seed=2)
    message = (
        r"some results/\.run\.json: not what the run of this job was started with; a later run"
        " with other settings or code has begun"
    )
    with pytest.raises(UserError, match=message):
        Workflow([CONFIG], config)


def test_a_job_that_got_no_ticket_is_refused(tmp_path: Path):
    job = Workflow([CONFIG], {"results_dir": str(tmp_path)})
    with pytest.raises(UserError, match="--config: lacks ticket_of_run"):
        job.freeze(Snakemake(tmp_path, is_main_process=False))


@pytest.mark.fault("code edited while a run is under way")
@pytest.mark.parametrize(
    ("edit", "named"),
    [
        (lambda folder: (folder / "b.py").write_text("other"), "package/b.py: changed since"),
        (lambda folder: (folder / "page.css").unlink(), "package/page.css: changed since"),
        (lambda folder: (folder.parents[1] / "Snakefile").write_text(""), "/Snakefile: changed"),
        (
            lambda folder: [(folder / f"{name}.py").write_text("") for name in "ab"],
            "package/a.py, package/b.py: changed since the run started",
        ),
    ],
    ids=["edited", "deleted", "workflow", "several"],
)
def test_other_code_is_refused_by_name(edit, named: str, package: Path, tmp_path: Path):
    begun(tmp_path)
    started.check_code()
    edit(package)
    with pytest.raises(UserError, match=named):
        started.check_code()


def test_what_no_run_began_with_is_no_change(package: Path, tmp_path: Path, monkeypatch):
    begun(tmp_path)
    (package / "new.py").touch()
    (package / "a.py").touch()  # as `git checkout` of another branch and back does
    started.check_code()
    (package / "a.py").write_text("other")
    monkeypatch.delenv(started.TICKET_VARIABLE)  # a command, not a job
    started.check_code()


def test_code_that_no_longer_reads_the_configuration_is_named(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    _, config = begun(tmp_path)
    (package / "a.py").write_text("a key has another name now")

    def refused(*_: object) -> None:
        raise UserError("seed: unknown key")

    monkeypatch.setattr("particleforge.orchestration.frozen.validate", refused)
    with pytest.raises(UserError, match=r"package/a\.py: changed since the run started"):
        Workflow([CONFIG], config)


@pytest.mark.fault("best.yaml edited while the training runs")
def test_the_record_of_a_training_has_the_settings_that_it_read(tmp_path: Path, monkeypatch):
    shards, best = tmp_path / "shards", tmp_path / "best.yaml"
    for split in ("train", "valid"):
        (shards / split).mkdir(parents=True)
    for name in ("manifest.json", "normalisation.json"):
        (shards / name).write_text("{}")
    best.write_text("model: {}\ntraining: {weight_decay: 0.01}\n")
    Provenance.of("select_best_trial", {}).record(best)
    (tmp_path / "board").mkdir()
    (tmp_path / "board/events.out.tfevents.1").touch()

    def edited_meanwhile(spec, *_: object) -> TrainingResult:
        best.write_text("model: {}\ntraining: {weight_decay: 0.123}\n")
        made = tmp_path / "made"
        made.write_text(str(spec.settings.training.weight_decay))
        return TrainingResult("complete", "", 1, 0.0, 0.0, [], made, made, made)

    monkeypatch.setattr(train, "run_training", edited_meanwhile)
    settings = TrainSettings.model_validate({"seed": 1, "model": {}, "training": {}})
    outputs = [tmp_path / name for name in ("best.pt", "last.pt", "metrics.parquet", "board")]
    names = ("model", "last", "metrics", "tensorboard")
    train.train_model(
        settings,
        manifest=shards / "manifest.json",
        best_settings=best,
        work_dir=tmp_path / "work",
        **dict(zip(names, outputs, strict=True)),
    )
    lineage = read_lineage(outputs[0])
    verify_lineage(lineage)
    assert outputs[0].read_text() == "0.01"
    assert lineage.items[outputs[0]].record["settings"]["training"]["weight_decay"] == 0.01
    (problem,) = lineage.problems()
    assert (problem.path, problem.state) == (best, "CHANGED")
    assert problem.reason == "not what its stage wrote, nor what best.pt read"
