# Targets that are no part of an ordinary run: each trains many small networks. See docs/scans.md.
rule scaling_batch:
    input:
        RUN.scans.results("scaling_batch"),


rule fine_tuning:
    input:
        RUN.scans.results("fine_tuning"),


rule scaling_law:
    input:
        RUN.scans.results("scaling_law"),


rule run_scan_training:
    """One training of a scan."""
    input:
        **RUN.training_data("train", "valid"),
        checked=PATHS.shards_verdict,
        source=RUN.scans.source,
    output:
        PATHS.scan_point,
    log:
        PATHS.log("run_scan_training", "scan", "point"),
    benchmark:
        PATHS.benchmark("run_scan_training", "scan", "point")
    threads: RUN.threads("run_scan_training")
    resources:
        **RUN.resources("run_scan_training"),
    params:
        point=RUN.scans.point,
        work=PATHS.scan_work,
    message:
        "{wildcards.detector}: {wildcards.scan}, {wildcards.point}"
    script:
        "../scripts/run_scan_training.py"


rule gather_scan:
    """Summary, fits, table and plots of a scan."""
    input:
        RUN.scans.points,
    output:
        summary=PATHS.scan,
        table=report(PATHS.scan_table, caption="../report/scans.rst", category="Scans"),
        plots=report(
            directory(PATHS.scan_plots),
            patterns=["{name}.png"],
            caption="../report/scans.rst",
            category="Scans",
        ),
    log:
        PATHS.log("gather_scan", "scan"),
    benchmark:
        PATHS.benchmark("gather_scan", "scan")
    threads: RUN.threads("gather_scan")
    resources:
        **RUN.resources("gather_scan"),
    params:
        settings=RUN.settings(stage.ScanSettings),
    message:
        "{wildcards.detector}: gather the scan {wildcards.scan}"
    script:
        "../scripts/gather_scan.py"
