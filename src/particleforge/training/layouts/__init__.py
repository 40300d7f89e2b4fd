"""Layouts: how weights, gradients, moments and events of a training lie on its ranks.

``make_layout(settings, workers)`` gives the one that ``training.layout`` names; ``base.Layout``
says what a layout does.
"""

from particleforge.config.layouts import layout_conflict
from particleforge.config.settings import TrainSettings
from particleforge.errors import UserError
from particleforge.training.distributed import Workers
from particleforge.training.layouts.base import Layout
from particleforge.training.layouts.pipeline import PipelineLayout
from particleforge.training.layouts.sharded import FullyShardedLayout, GradientShardedLayout
from particleforge.training.layouts.tensor import TensorLayout

__all__ = ["Layout", "make_layout"]
_LAYOUTS: dict[str, type[Layout]] = {
    "ddp": Layout,
    "zero2": GradientShardedLayout,
    "fsdp": FullyShardedLayout,
    "tensor": TensorLayout,
    "pipeline": PipelineLayout,
}


def make_layout(settings: TrainSettings, workers: Workers) -> Layout:
    """Return the configured layout.

    One that the model or the number of ranks does not allow is a UserError.

    A single rank holds everything, whatever is configured: so the same configuration serves a
    search on one rank.
    """
    conflict = layout_conflict(settings.model, settings.training, workers.world_size)
    if conflict:
        raise UserError(conflict)
    layout = _LAYOUTS[settings.training.layout] if workers.world_size > 1 else Layout
    return layout(settings, workers)
