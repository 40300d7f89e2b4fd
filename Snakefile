# From collision simulation to a deployed particle-flow model. See README.md; options are described in config/README.md.
from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/simulate.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/check_data.smk"
include: "workflow/rules/select.smk"
include: "workflow/rules/preprocess.smk"
include: "workflow/rules/hpo.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/export.smk"
include: "workflow/rules/reconstruct.smk"
include: "workflow/rules/apply.smk"
include: "workflow/rules/validate.smk"
include: "workflow/rules/scans.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        RUN.files.every(PATHS.report),


onstart:
    try:
        RUN.apply.check_targets(workflow)
        RUN.hold_results()
    except (UserError, OSError) as error:
        raise WorkflowError(str(error)) from None


onsuccess:
    print(
        "\n".join(
            f"Report: {path}"
            for path in RUN.files.every(PATHS.report)
            if Path(path).is_file()
        )
    )
