# The configuration, read once. `config` holds only what --config and --configfile gave: config/config.yaml, the preset
# and the detectors are read by the package, which names the file and key of any mistake.
from pathlib import Path

from snakemake.exceptions import WorkflowError

from particleforge.config import settings as stage
from particleforge.config.reader import check_given
from particleforge.errors import UserError
from particleforge.paths import SPLITS, SCAN_PLOTS
from particleforge.orchestration.workflow import Workflow

try:
    if workflow.is_main_process:  # a job has what its run was started with
        GIVEN = workflow.config_settings
        check_given(GIVEN.config_args, GIVEN.configfiles)
    RUN = Workflow([Path("config"), Path(workflow.basedir) / "config"], config)
    RUN.freeze(workflow)
except UserError as error:
    raise WorkflowError(str(error)) from None

PATHS = RUN.paths


# Used only with --software-deployment-method apptainer; the Containerfile says how to build it.
container: "particleforge.sif"


wildcard_constraints:
    detector="|".join(RUN.detectors),
    sample="[A-Za-z][A-Za-z0-9_]*",
    split="train|valid|test",
    shard="[0-9]{5}",
    rung="[0-9]+",
    slot="[0-9]+",
    place="[0-9]+",
    seed="[0-9]+",
    scan="|".join(SCAN_PLOTS),
    point="[a-z0-9_]+",
    source=".+",
    applied="[0-9]{5}_[^/]*",


localrules:
    all,
    simulate,
    fetch,
    dataset,
    check_data,
    select,
    preprocess,
    hpo,
    train,
    export,
    reconstruct,
    apply,
    validate,
    scaling_batch,
    fine_tuning,
    scaling_law,
    report,
