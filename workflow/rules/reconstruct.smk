rule reconstruct:
    input:
        lambda _: RUN.files.every_shard(
            PATHS.reconstructed, PATHS.reconstructed_edm4hep
        ),


rule reconstruct_events:
    """Candidates of the exported model, in Parquet and EDM4hep; needs onnxruntime only."""
    input:
        events=PATHS.selected,
        model=PATHS.onnx,
    output:
        events=PATHS.reconstructed,
        edm4hep=PATHS.reconstructed_edm4hep,
    log:
        PATHS.log("reconstruct_events", "sample", "shard"),
    benchmark:
        PATHS.benchmark("reconstruct_events", "sample", "shard")
    threads: RUN.threads("reconstruct_events")
    resources:
        **RUN.resources("reconstruct_events"),
    params:
        settings=RUN.settings(stage.ReconstructSettings),
    message:
        "{wildcards.detector}: reconstruct {wildcards.sample}, shard {wildcards.shard}"
    script:
        "../scripts/reconstruct_events.py"
