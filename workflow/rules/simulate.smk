rule simulate:
    input:
        lambda _: RUN.files.every_shard(PATHS.simulated),


rule simulate_events:
    """Pythia8 and the parametric detector: one EDM4hep file of one sample."""
    output:
        PATHS.simulated,
    log:
        PATHS.log("simulate_events", "sample", "shard"),
    benchmark:
        PATHS.benchmark("simulate_events", "sample", "shard")
    threads: RUN.threads("simulate_events")
    resources:
        **RUN.resources("simulate_events"),
    params:
        settings=RUN.simulate_settings(),
    message:
        "{wildcards.detector}: simulate {wildcards.sample}, shard {wildcards.shard}"
    script:
        "../scripts/simulate_events.py"
