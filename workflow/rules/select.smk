rule select:
    input:
        RUN.files.every(PATHS.cutflow_table, PATHS.cutflow_plot),
        lambda _: RUN.files.every_shard(PATHS.selected),


rule select_events:
    """Cuts on events and objects; fixes each event's split."""
    input:
        PATHS.dataset,
    output:
        events=PATHS.selected,
        cutflow=PATHS.cutflow,
    log:
        PATHS.log("select_events", "sample", "shard"),
    benchmark:
        PATHS.benchmark("select_events", "sample", "shard")
    threads: RUN.threads("select_events")
    resources:
        **RUN.resources("select_events"),
    params:
        settings=RUN.settings(stage.SelectSettings),
    message:
        "{wildcards.detector}: select events of {wildcards.sample}, shard {wildcards.shard}"
    script:
        "../scripts/select_events.py"


rule gather_cutflows:
    """One cutflow of all samples, table and plot."""
    input:
        RUN.files.shards(PATHS.cutflow),
    output:
        table=PATHS.cutflow_table,
        plot=report(
            PATHS.cutflow_plot, caption="../report/cutflow.rst", category="Selection"
        ),
    log:
        PATHS.log("gather_cutflows"),
    benchmark:
        PATHS.benchmark("gather_cutflows")
    threads: RUN.threads("gather_cutflows")
    resources:
        **RUN.resources("gather_cutflows"),
    params:
        settings=RUN.settings(stage.CutflowSettings),
    message:
        "{wildcards.detector}: gather cutflows"
    script:
        "../scripts/gather_cutflows.py"
