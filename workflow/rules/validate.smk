rule validate:
    input:
        RUN.files.every(PATHS.physics_metrics),


rule validate_model:
    """Jets, missing momentum and particles of model, baseline, ideal and targets."""
    input:
        selected=RUN.files.shards(PATHS.selected),
        reconstructed=RUN.files.shards(PATHS.reconstructed),
    output:
        metrics=PATHS.physics_metrics,
        histograms=PATHS.histograms,
        plots=report(
            directory(PATHS.validation_plots),
            patterns=["{name}.png"],
            caption="../report/validation.rst",
            category="Physics validation",
        ),
    log:
        PATHS.log("validate_model"),
    benchmark:
        PATHS.benchmark("validate_model")
    threads: RUN.threads("validate_model")
    resources:
        **RUN.resources("validate_model"),
    params:
        settings=RUN.settings(stage.ValidateSettings),
    message:
        "{wildcards.detector}: validate the physics"
    script:
        "../scripts/validate_model.py"
