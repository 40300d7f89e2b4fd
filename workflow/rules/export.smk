rule export:
    input:
        RUN.files.every(PATHS.onnx),


rule export_onnx:
    """The model as ONNX, gated by its parity with torch on real events."""
    input:
        **RUN.training_data("valid", "test"),
        model=PATHS.model,
    output:
        onnx=PATHS.onnx,
        parity=PATHS.parity,
        card=PATHS.model_card,
    log:
        PATHS.log("export_onnx"),
    benchmark:
        PATHS.benchmark("export_onnx")
    threads: RUN.threads("export_onnx")
    resources:
        **RUN.resources("export_onnx"),
    params:
        settings=RUN.settings(stage.ExportSettings),
    message:
        "{wildcards.detector}: export the model"
    script:
        "../scripts/export_onnx.py"
