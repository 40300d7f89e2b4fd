"""What a parallelism of a training on its ranks asks of model and training.

Known before any rank starts.
"""

from collections.abc import Iterator

from particleforge.config.model import ModelConfig
from particleforge.config.training import TrainingConfig


def parallelism_conflict(model: ModelConfig, training: TrainingConfig, ranks: int) -> str | None:
    """Return in one line why these settings and ranks exclude the parallelism, or None.

    The parallelism is that of ``training.parallelism``.

    One rank has everything, whatever the parallelism.
    """
    return (
        next(_conflicts(model, training, ranks), None)
        if ranks > 1 and training.parallelism != "ddp"
        else None
    )


def _conflicts(model: ModelConfig, training: TrainingConfig, ranks: int) -> Iterator[str]:
    parallelism, size = training.parallelism, training.model_parallel_ranks
    if training.compile:
        yield (
            f"training.compile: not with training.parallelism = {parallelism}; set it to false, or"
            " use ddp"
        )
    if training.optimiser == "lamb" and parallelism != "pipeline":
        yield (
            "training.optimiser: lamb needs the norms of whole tensors, which training.parallelism"
            f" = {parallelism} slices; use adamw, or the parallelism ddp or pipeline"
        )
    if parallelism in ("tensor", "pipeline") and ranks % size:
        yield (
            f"training.ranks: {ranks} is no multiple of training.model_parallel_ranks = {size},"
            f" which training.parallelism = {parallelism} needs; change one of them"
        )
    if parallelism == "pipeline" and model.n_layers < size:
        yield (
            f"model.n_layers: {model.n_layers} layers are too few for training.model_parallel_ranks"
            f" = {size} stages; change one of them"
        )
    if parallelism == "tensor":
        yield from _conflicts_of_tensor(model, size)


def _conflicts_of_tensor(model: ModelConfig, size: int) -> Iterator[str]:
    if model.backbone != "attention":
        yield (
            "training.parallelism: tensor divides layers of attention, not of model.backbone ="
            f" {model.backbone}; take fsdp"
        )
    if model.dropout:
        yield (
            f"model.dropout: {model.dropout} with training.parallelism = tensor would drop the same"
            " units on all ranks; set it to 0, or take another training.parallelism"
        )
    hidden = round(model.width * model.feedforward_factor)
    for name, value in (
        ("model.n_heads", model.n_heads),
        ("model.width * model.feedforward_factor", hidden),
    ):
        if value % size:
            yield (
                f"{name}: {value} cannot be dealt to training.model_parallel_ranks = {size}; "
                "change one of them, or take another training.parallelism"
            )
