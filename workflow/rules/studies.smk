# Targets that are no part of an ordinary run: each trains many small networks. See docs/studies.md.
rule scaling_batch:
    input:
        RUN.study_results("scaling_batch"),


rule fine_tuning:
    input:
        RUN.study_results("fine_tuning"),


rule scaling_law:
    input:
        RUN.study_results("scaling_law"),


rule run_study_training:
    """One training of a study."""
    input:
        **RUN.training_data("train", "valid"),
        checked=PATHS.shards_verdict,
        source=RUN.study_source,
    output:
        PATHS.study_point,
    log:
        PATHS.log("run_study_training", "study", "point"),
    benchmark:
        PATHS.benchmark("run_study_training", "study", "point")
    threads: RUN.threads("run_study_training")
    resources:
        **RUN.resources("run_study_training"),
    params:
        point=RUN.study_point,
        work=PATHS.study_work,
    message:
        "{wildcards.detector}: {wildcards.study}, {wildcards.point}"
    script:
        "../scripts/run_study_training.py"


rule gather_study:
    """Summary, fits, table and plots of a study."""
    input:
        RUN.study_points,
    output:
        summary=PATHS.study,
        table=report(
            PATHS.study_table, caption="../report/studies.rst", category="Studies"
        ),
        plots=report(
            directory(PATHS.study_plots),
            patterns=["{name}.png"],
            caption="../report/studies.rst",
            category="Studies",
        ),
    log:
        PATHS.log("gather_study", "study"),
    benchmark:
        PATHS.benchmark("gather_study", "study")
    threads: RUN.threads("gather_study")
    resources:
        **RUN.resources("gather_study"),
    params:
        settings=RUN.settings(stage.StudySettings),
    message:
        "{wildcards.detector}: gather the study {wildcards.study}"
    script:
        "../scripts/gather_study.py"
