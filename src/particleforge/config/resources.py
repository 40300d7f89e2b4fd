"""What jobs ask of a cluster."""

from pydantic import Field

from particleforge.config.base import Block


class RuleResources(Block):
    """Resources of one rule's jobs; memory and run time grow with the attempt."""

    threads: int = Field(1, ge=1)
    mem_mb: int = Field(2000, ge=100)
    runtime_min: int = Field(60, ge=1)
    gpus: int = Field(0, ge=0)
    nodes: int = Field(1, ge=1)
    partition: str | None = None


class ResourcesConfig(Block):
    """Resources by rule."""

    simulate_events: RuleResources = RuleResources()
    build_dataset: RuleResources = RuleResources(mem_mb=3000)
    select_events: RuleResources = RuleResources()
    gather_cutflows: RuleResources = RuleResources()
    write_shards: RuleResources = RuleResources(mem_mb=4000)
    run_hpo_slot: RuleResources = RuleResources(mem_mb=4000, runtime_min=120)
    select_best_trial: RuleResources = RuleResources()
    train_model: RuleResources = RuleResources(threads=2, mem_mb=8000, runtime_min=600)
    export_onnx: RuleResources = RuleResources(mem_mb=4000)
    reconstruct_events: RuleResources = RuleResources(mem_mb=3000)
    validate_model: RuleResources = RuleResources(mem_mb=4000)
    build_report: RuleResources = RuleResources()
