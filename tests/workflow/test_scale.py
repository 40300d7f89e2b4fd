"""Many shards: a job plans itself only, and one job may take several simulated files."""

import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chain import ROOT, Chain, planned_jobs

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings
from particleforge.dataset.build import build_dataset

TEN_THOUSAND = (  # in each of the samples
    "simulation={events_per_sample: 120000, events_per_shard: 12}"
)


def cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.parametrize("rule", ["simulate_events", "reconstruct_events"])
def test_a_job_plans_itself_only(chain, rule):
    """Snakemake runs again in every job: its cost must not grow with the number of shards."""
    job = (
        "--target-jobs",
        f"{rule}:detector=clic,sample=ttbar,shard=00000",
        "--allowed-rules",
        rule,
        "--force",
    )
    before = cpu_seconds()
    text = chain.run(
        *job, "--nolock", "-n", "--quiet", "rules", config=(TEN_THOUSAND,), afresh=True
    )
    assert planned_jobs(text) == {rule: 1}
    assert cpu_seconds() - before < 5


def test_a_job_of_ten_thousand_given_files_plans_itself_only(tmp_path):
    new = Chain.new(tmp_path / "new")
    folder = new.folder / "data"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"file_{number}.root").touch()
    published = {
        "title": "Many",
        "reference": "nowhere",
        "licence": "none",
        "detector": "clic",
        "expects": "EDM4hep",
    }
    (new.folder / "config/published/many.yaml").write_text(
        yaml.safe_dump(published | {"samples": {"qq": {"label": "qq", "files": "data"}}})
    )
    job = (
        "--target-jobs",
        "build_dataset:detector=clic,sample=qq,shard=09999",
        "--allowed-rules",
        "build_dataset",
        "--force",
    )
    before = cpu_seconds()
    files = ("simulation={backend: files, published: many}",)
    text = new.run(*job, "--nolock", "-n", config=files, afresh=True)
    assert cpu_seconds() - before < 5
    assert planned_jobs(text) == {"build_dataset": 1}
    assert "build dataset of qq, shard 09999" in text


def test_one_job_takes_several_simulated_files(tmp_path):
    simulation = (
        "simulation={events_per_sample: 60, events_per_shard: 12, files_per_dataset_shard: 2}"
    )
    jobs = Chain.new(tmp_path / "new").planned(config=(simulation,))
    n_samples = len(load_detector(ROOT / "config", "clic").samples)
    assert jobs["simulate_events"] == 6 * n_samples  # rounded up to full shards of the dataset
    assert (
        jobs["build_dataset"]
        == jobs["select_events"]
        == jobs["reconstruct_events"]
        == 3 * n_samples
    )


def test_several_files_give_the_events_of_each(chain, tmp_path):
    config = chain.folder / "config"
    settings = DatasetSettings.of(
        load_run(config, {"preset": "tiny"}), load_detector(config, "clic"), sample_name="ttbar"
    )
    files = sorted((chain.results / "sim/ttbar").glob("*.root"))
    build_dataset(settings, files, tmp_path / "both.parquet")
    each = [
        pq.read_table(path) for path in sorted((chain.results / "dataset/ttbar").glob("*.parquet"))
    ]
    assert len(files) == len(each) == 2
    assert pq.read_table(tmp_path / "both.parquet").equals(pa.concat_tables(each))
