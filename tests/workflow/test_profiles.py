"""Plans with the shipped profiles, and with the plugins of other batch systems where they are
installed.
"""

import importlib.util
import subprocess

import pytest
import yaml
from chain import PATIENCE_S, ROOT, environment, planned_jobs

from particleforge.config.resources import ResourcesConfig

STORAGE = ("--default-storage-provider", "fs", "--default-storage-prefix", "store")
OTHERS = {  # the options of docs/cluster.md
    "lsf": ("--default-resources", "lsf_queue=normal", "lsf_project=mine"),
    "htcondor": ("--htcondor-jobdir", "condor"),
    "cluster-generic": (
        "--cluster-generic-submit-cmd",
        "qsub -l mem={resources.mem_mb}mb -l walltime={resources.runtime}:00",
    ),
    "kubernetes": (*STORAGE,),
    "googlebatch": (*STORAGE, "--googlebatch-project", "p", "--googlebatch-region", "r"),
    "aws-batch": (
        *STORAGE,
        "--aws-batch-region",
        "r",
        "--aws-batch-job-queue",
        "q",
        "--aws-batch-job-role",
        "r",
    ),
    "azure-batch": (
        *STORAGE,
        *(
            "--azure-batch-account-url",
            "https://a",
            "--azure-batch-resource-group-name",
            "g",
            "--azure-batch-subscription-id",
            "s",
        ),
    ),
}


@pytest.mark.parametrize("profile", ["slurm", "allocation"])
def test_plan_is_that_of_the_local_profile(chain, profile):
    assert chain.planned("--forceall", profile=profile) == chain.planned("--forceall")


def test_profiles_lie_beside_the_local_one():
    assert sorted(path.name for path in (ROOT / "profiles").iterdir()) == [
        "allocation",
        "local",
        "slurm",
    ], "never one named default"


def test_resources_of_the_profile_are_valid():
    content = yaml.safe_load((ROOT / "profiles/slurm/resources.yaml").read_text())
    assert list(content) == ["resources"]
    ResourcesConfig.model_validate(content["resources"])


@pytest.mark.parametrize("executor", OTHERS)
def test_plan_for_another_batch_system(chain, executor):
    modules = [f"snakemake_executor_plugin_{executor.replace('-', '_')}"]
    if "--default-storage-provider" in OTHERS[executor]:
        modules.append("snakemake_storage_plugin_fs")
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing).replace('_', '-')}")
    fixed = [
        "--snakefile",
        str(ROOT / "Snakefile"),
        "--executor",
        executor,
        "--jobs",
        "10",
        "--config",
        "preset=tiny",
        "detector=clic",
    ]
    command = [
        "snakemake",
        "train",
        "--forceall",
        "-n",
        "--quiet",
        "rules",
        *fixed,
        *OTHERS[executor],
        "--config",
        "preset=tiny",
        "detector=clic",
    ]
    done = subprocess.run(
        command,
        cwd=chain.folder,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert planned_jobs(done.stdout + done.stderr)["train_model"] == 1
