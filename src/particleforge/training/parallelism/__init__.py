"""Forms of parallelism: how weights, gradients, moments and events of a training lie on its ranks.

``make_parallelism(settings, workers)`` gives the one that ``training.parallelism`` names;
``base.Parallelism`` says what a parallelism does.
"""

from particleforge.config.parallelism import parallelism_conflict
from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.training.distributed import Workers
from particleforge.training.parallelism.base import Parallelism
from particleforge.training.parallelism.pipeline import PipelineParallelism
from particleforge.training.parallelism.sharded import (
    FullyShardedParallelism,
    GradientShardedParallelism,
)
from particleforge.training.parallelism.tensor import TensorParallelism

__all__ = ["Parallelism", "make_parallelism"]
_FORMS: dict[str, type[Parallelism]] = {
    "ddp": Parallelism,
    "zero2": GradientShardedParallelism,
    "fsdp": FullyShardedParallelism,
    "tensor": TensorParallelism,
    "pipeline": PipelineParallelism,
}


def make_parallelism(settings: TrainSettings, workers: Workers) -> Parallelism:
    """Return the configured parallelism.

    One that the model or the number of ranks does not allow is a UserError.

    A single rank holds everything, whatever is configured: so the same configuration serves a
    search on one rank.
    """
    conflict = parallelism_conflict(settings.model, settings.training, workers.world_size)
    if conflict:
        raise UserError(conflict)
    parallelism = _FORMS[settings.training.parallelism] if workers.world_size > 1 else Parallelism
    return parallelism(settings, workers)
