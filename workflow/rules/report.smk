rule report:
    input:
        RUN.files.every(PATHS.report),


rule build_report:
    """One self-contained page of everything."""
    input:
        dataset=RUN.files.shards(PATHS.dataset),
        selected=RUN.files.shards(PATHS.selected),
        reconstructed=RUN.files.shards(PATHS.reconstructed),
        cutflow_table=PATHS.cutflow_table,
        cutflow_plot=PATHS.cutflow_plot,
        manifest=PATHS.manifest,
        dataset_verdict=PATHS.dataset_verdict,
        shards_verdict=PATHS.shards_verdict,
        hpo_best=PATHS.hpo_best,
        hpo_trials=PATHS.hpo_trials,
        hpo_plots=[PATHS.hpo_plot(name) for name in RUN.search.plots],
        metrics=PATHS.metrics,
        parity=PATHS.parity,
        model_card=PATHS.model_card,
        physics_metrics=PATHS.physics_metrics,
        histograms=PATHS.histograms,
        validation_plots=PATHS.validation_plots,
        scans=RUN.scans.in_report(PATHS.scan),
        scan_plots=RUN.scans.in_report(PATHS.scan_plots),
    output:
        report(PATHS.report, caption="../report/page.rst", category="Report"),
    log:
        PATHS.log("build_report"),
    benchmark:
        PATHS.benchmark("build_report")
    threads: RUN.threads("build_report")
    resources:
        **RUN.resources("build_report"),
    params:
        settings=RUN.settings(stage.ReportSettings),
    message:
        "{wildcards.detector}: build the report"
    script:
        "../scripts/build_report.py"
