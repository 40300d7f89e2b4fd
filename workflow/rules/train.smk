rule train:
    input:
        RUN.files.every(PATHS.model, PATHS.metrics),


rule train_model:
    """The final training with the search's best settings."""
    input:
        **RUN.training_data("train", "valid"),
        **RUN.initial_weights(),
        best=PATHS.hpo_best,
        checked=PATHS.shards_verdict,
    output:
        model=PATHS.model,
        last=PATHS.last_model,
        metrics=PATHS.metrics,
        tensorboard=directory(PATHS.tensorboard),
    log:
        PATHS.log("train_model"),
    benchmark:
        PATHS.benchmark("train_model")
    threads: RUN.threads("train_model")
    resources:
        **RUN.resources("train_model"),
    params:
        settings=RUN.settings(stage.TrainSettings),
        work=PATHS.train_work,
    message:
        "{wildcards.detector}: train the final model"
    script:
        "../scripts/train_model.py"
