# A target that is no part of an ordinary run: a model on files of any origin, which need no truth. See docs/real-data.md.
rule apply:
    input:
        lambda _: RUN.apply.outputs(),


rule apply_model:
    """Candidates of a model in one given file, in Parquet and EDM4hep."""
    input:
        file=RUN.apply.file,
        model=RUN.apply.model,
    output:
        events=PATHS.applied,
        edm4hep=PATHS.applied_edm4hep,
    log:
        PATHS.log("apply_model", "applied"),
    benchmark:
        PATHS.benchmark("apply_model", "applied")
    threads: RUN.threads("apply_model")
    resources:
        **RUN.resources("apply_model"),
    params:
        settings=RUN.apply.settings,
    message:
        "{wildcards.detector}: apply the model to {input.file}"
    script:
        "../scripts/apply_model.py"
