"""What jobs ask of a cluster."""

from pydantic import Field

from particleforge.config.base import Block


class RuleResources(Block):
    """Resources of one rule's jobs; memory and run time grow with the attempt."""

    threads: int = Field(1, ge=1, description="processor cores of a job, all nodes together")
    mem_mb: int = Field(2000, ge=100, description="memory per node")
    runtime_min: int = Field(60, ge=1, description="wall time")
    gpus: int = Field(0, ge=0, description="GPUs per node")
    nodes: int = Field(
        1,
        ge=1,
        description=(
            "nodes of a job; more than one for trainings only, whose ranks are spread evenly over"
            " them"
        ),
    )
    partition: str | None = Field(None, description="Slurm partition; default is the profile's")


class ResourcesConfig(Block):
    """Resources by rule."""

    stop_before_limit_s: int = Field(
        120,
        ge=0,
        description=(
            "how long before the end of a Slurm job its training saves its state and goes back to"
            " the queue; 0: never"
        ),
    )
    simulate_events: RuleResources = RuleResources()
    fetch_file: RuleResources = RuleResources(mem_mb=500)
    build_dataset: RuleResources = RuleResources(mem_mb=3000)
    check_dataset: RuleResources = RuleResources(mem_mb=3000)
    compare_samples: RuleResources = RuleResources()
    check_shards: RuleResources = RuleResources(mem_mb=3000)
    select_events: RuleResources = RuleResources()
    gather_cutflows: RuleResources = RuleResources()
    write_shards: RuleResources = RuleResources(mem_mb=4000)
    run_hpo_slot: RuleResources = RuleResources(mem_mb=4000, runtime_min=120)
    confirm_trial: RuleResources = RuleResources(mem_mb=4000, runtime_min=240)
    select_best_trial: RuleResources = RuleResources()
    train_model: RuleResources = RuleResources(threads=2, mem_mb=8000, runtime_min=600)
    run_scan_training: RuleResources = RuleResources(mem_mb=4000, runtime_min=120)
    gather_scan: RuleResources = RuleResources()
    export_onnx: RuleResources = RuleResources(mem_mb=4000)
    reconstruct_events: RuleResources = RuleResources(mem_mb=3000)
    apply_model: RuleResources = RuleResources(mem_mb=3000)
    validate_model: RuleResources = RuleResources(mem_mb=4000)
    build_report: RuleResources = RuleResources()
