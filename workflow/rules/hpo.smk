rule hpo:
    input:
        RUN.files.every(
            PATHS.hpo_best, PATHS.hpo_trials, *map(PATHS.hpo_plot, RUN.search.plots)
        ),


rule run_hpo_slot:
    """One slot of one rung of the search: a DDP training of a new or a promoted configuration."""
    input:
        **RUN.training_data("train", "valid"),
        **RUN.initial_weights(),
        checked=PATHS.shards_verdict,
        parents=RUN.search.slot_parents,
        warm_start=RUN.search.warm_start,
    output:
        PATHS.hpo_slot,
    log:
        PATHS.log("run_hpo_slot", "rung", "slot"),
    benchmark:
        PATHS.benchmark("run_hpo_slot", "rung", "slot")
    priority: RUN.search.priority
    threads: RUN.threads("run_hpo_slot")
    resources:
        **RUN.resources("run_hpo_slot"),
    params:
        settings=RUN.settings(stage.HpoSettings),
        work=PATHS.hpo_work,
    message:
        "{wildcards.detector}: search, rung {wildcards.rung}, slot {wildcards.slot}"
    script:
        "../scripts/run_hpo_slot.py"


rule confirm_trial:
    """One of the best configurations of a finished search, trained from a further seed."""
    input:
        **RUN.training_data("train", "valid"),
        **RUN.initial_weights(),
        checked=PATHS.shards_verdict,
        slots=RUN.search.all_slots,
    output:
        PATHS.hpo_confirmation,
    log:
        PATHS.log("confirm_trial", "place", "seed"),
    benchmark:
        PATHS.benchmark("confirm_trial", "place", "seed")
    threads: RUN.threads("confirm_trial")
    resources:
        **RUN.resources("confirm_trial"),
    params:
        settings=RUN.settings(stage.SelectBestSettings),
        work=PATHS.hpo_work,
    message:
        "{wildcards.detector}: search, confirm place {wildcards.place} from seed {wildcards.seed}"
    script:
        "../scripts/confirm_trial.py"


rule select_best_trial:
    """The winner's settings, the table of trials and the plots of the search."""
    input:
        **RUN.training_data("train", "valid"),
        slots=RUN.search.all_slots,
        confirmations=RUN.search.confirmations,
    output:
        **{
            name: report(
                PATHS.hpo_plot(name), caption="../report/hpo.rst", category="Search"
            )
            for name in RUN.search.plots
        },
        best=PATHS.hpo_best,
        trials=report(PATHS.hpo_trials, caption="../report/hpo.rst", category="Search"),
    log:
        PATHS.log("select_best_trial"),
    benchmark:
        PATHS.benchmark("select_best_trial")
    threads: RUN.threads("select_best_trial")
    resources:
        **RUN.resources("select_best_trial"),
    params:
        settings=RUN.settings(stage.SelectBestSettings),
        work=PATHS.hpo_work,
    message:
        "{wildcards.detector}: select the best trial"
    script:
        "../scripts/select_best_trial.py"
