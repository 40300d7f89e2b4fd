rule dataset:
    input:
        RUN.every_shard(PATHS.dataset),


rule build_dataset:
    """EDM4hep to one Parquet row per event, with truth and targets."""
    input:
        RUN.simulated_files,
    output:
        PATHS.dataset,
    log:
        PATHS.log("build_dataset", "sample", "shard"),
    benchmark:
        PATHS.benchmark("build_dataset", "sample", "shard")
    threads: RUN.threads("build_dataset")
    resources:
        **RUN.resources("build_dataset"),
    params:
        settings=RUN.settings(stage.DatasetSettings),
    message:
        "{wildcards.detector}: build dataset of {wildcards.sample}, shard {wildcards.shard}"
    script:
        "../scripts/build_dataset.py"
