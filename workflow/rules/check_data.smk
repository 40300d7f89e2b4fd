# What reads the data has their verdict as an input, and not as an ancient one: where a job makes an ancient input anew, Snakemake does
# not look whether those that read it have reasons of their own to run, and leaves out what they lack.


rule check_data:
    input:
        RUN.files.every(PATHS.dataset_verdict, PATHS.shards_verdict),


rule check_dataset:
    """All shards of one sample of the dataset: schema, values, references, energies, drift."""
    input:
        RUN.files.shards_of_sample(PATHS.dataset),
    output:
        PATHS.sample_verdict,
    log:
        PATHS.log("check_dataset", "sample"),
    benchmark:
        PATHS.benchmark("check_dataset", "sample")
    threads: RUN.threads("check_dataset")
    resources:
        **RUN.resources("check_dataset"),
    params:
        settings=RUN.settings(stage.CheckDatasetSettings),
        work=f"{PATHS.checks_work}/dataset",
    message:
        "{wildcards.detector}: check the dataset of {wildcards.sample}"
    script:
        "../scripts/check_dataset.py"


rule compare_samples:
    """The samples of the dataset against each other."""
    input:
        RUN.files.samples(PATHS.sample_verdict),
    output:
        PATHS.dataset_verdict,
    log:
        PATHS.log("compare_samples"),
    benchmark:
        PATHS.benchmark("compare_samples")
    threads: RUN.threads("compare_samples")
    resources:
        **RUN.resources("compare_samples"),
    params:
        settings=RUN.settings(stage.CompareSamplesSettings),
        work=f"{PATHS.checks_work}/samples",
    message:
        "{wildcards.detector}: compare the samples"
    script:
        "../scripts/compare_samples.py"


rule check_shards:
    """The training shards against their manifest and normalisation."""
    input:
        **RUN.training_data(*SPLITS),
    output:
        PATHS.shards_verdict,
    log:
        PATHS.log("check_shards"),
    benchmark:
        PATHS.benchmark("check_shards")
    threads: RUN.threads("check_shards")
    resources:
        **RUN.resources("check_shards"),
    params:
        settings=RUN.settings(stage.CheckShardsSettings),
        work=f"{PATHS.checks_work}/shards",
    message:
        "{wildcards.detector}: check the training shards"
    script:
        "../scripts/check_shards.py"
