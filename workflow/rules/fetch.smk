# Fetching runs on the machine that runs the workflow: a cluster's nodes may reach no network.
localrules:
    fetch_file,


rule fetch:
    input:
        lambda _: RUN.given.fetched_files(),


rule fetch_file:
    """One file of another machine, complete and compared with its checksum."""
    output:
        PATHS.fetched if RUN.run.simulation.fetch.keep else temp(PATHS.fetched),
    log:
        PATHS.log("fetch_file", "sample", "source"),
    benchmark:
        PATHS.benchmark("fetch_file", "sample", "source")
    threads: RUN.threads("fetch_file")
    resources:
        **RUN.resources("fetch_file"),
        **RUN.given.fetch_resources(),
    params:
        settings=RUN.given.fetch_settings,
    message:
        "{wildcards.detector}: fetch {wildcards.source} of {wildcards.sample}"
    script:
        "../scripts/fetch_file.py"
