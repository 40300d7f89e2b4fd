rule dataset:
    input:
        lambda _: RUN.files.every_shard(PATHS.dataset),


rule build_dataset:
    """Simulated or given files to one Parquet row per event, with truth and targets."""
    input:
        RUN.files.dataset_inputs,
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
        settings=RUN.dataset_settings(),
    message:
        "{wildcards.detector}: build dataset of {wildcards.sample}, shard {wildcards.shard}"
    script:
        "../scripts/build_dataset.py"
