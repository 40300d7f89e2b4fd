rule preprocess:
    input:
        RUN.files.every(*RUN.training_data(*SPLITS).values()),


rule write_shards:
    """Features, targets, normalisation and shuffled shards for training."""
    input:
        selected=RUN.files.trained_shards(PATHS.selected),
        checked=PATHS.dataset_verdict,
    output:
        manifest=PATHS.manifest,
        normalisation=PATHS.normalisation,
        train=directory(PATHS.shards("train")),
        valid=directory(PATHS.shards("valid")),
        test=directory(PATHS.shards("test")),
    log:
        PATHS.log("write_shards"),
    benchmark:
        PATHS.benchmark("write_shards")
    threads: RUN.threads("write_shards")
    resources:
        **RUN.resources("write_shards"),
    params:
        settings=RUN.settings(stage.ShardSettings),
    message:
        "{wildcards.detector}: write training shards"
    script:
        "../scripts/write_shards.py"
