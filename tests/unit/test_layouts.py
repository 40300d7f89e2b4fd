"""Layouts that model, training or number of ranks do not allow: one line each, before any rank
starts.
"""

from pathlib import Path
from typing import Any

import pytest
import torch

from particleforge.config.layouts import layout_conflict
from particleforge.config.load import load_run
from particleforge.config.model import ModelConfig
from particleforge.config.settings import TrainSettings
from particleforge.config.training import TrainingConfig
from particleforge.errors import UserError
from particleforge.training.distributed import Workers
from particleforge.training.layouts import make_layout

MODEL = {"width": 16, "n_layers": 4, "n_heads": 4}
REFUSED: list[tuple[int, dict[str, Any], dict[str, Any], str]] = [
    (
        3,
        {},
        {"layout": "tensor"},
        r"training\.ranks: 3 is no multiple of training\.model_parallel_ranks = 2, which",
    ),
    (
        3,
        {},
        {"layout": "pipeline"},
        r"training\.ranks: 3 is no multiple of training\.model_parallel_ranks = 2, which",
    ),
    (
        3,
        {},
        {"layout": "tensor", "model_parallel_ranks": 3},
        r"model\.n_heads: 4 cannot be dealt to training\.model_parallel_ranks = 3",
    ),
    (
        2,
        {"feedforward_factor": 33 / 16},
        {"layout": "tensor"},
        r"model\.width \* model\.feedforward_factor: 33 cannot be dealt to",
    ),
    (
        2,
        {"dropout": 0.1},
        {"layout": "tensor"},
        r"model\.dropout: 0\.1 with training\.layout = tensor would drop the same units",
    ),
    (
        2,
        {"backbone": "gnn_lsh"},
        {"layout": "tensor"},
        r"training\.layout: tensor divides layers of attention, not of",
    ),
    (
        2,
        {"n_layers": 1},
        {"layout": "pipeline"},
        r"model\.n_layers: 1 layers are too few for training\.model_parallel_ranks = 2",
    ),
    (
        2,
        {},
        {"layout": "zero2", "optimiser": "lamb"},
        r"training\.optimiser: lamb needs the norms of whole tensors, which",
    ),
    (
        2,
        {},
        {"layout": "fsdp", "compile": True},
        r"training\.compile: not with training\.layout = fsdp; set it to false, or use ddp$",
    ),
]


@pytest.mark.parametrize(("ranks", "model", "training", "line"), REFUSED)
def test_what_a_layout_cannot_do_is_refused(
    ranks: int, model: dict[str, Any], training: dict[str, Any], line: str
) -> None:
    settings = TrainSettings(seed=1, model=MODEL | model, training=training)
    with pytest.raises(UserError, match=f"^{line}"):
        make_layout(settings, Workers(0, ranks, torch.device("cpu")))
    with pytest.raises(UserError, match=line) as caught:
        load_run(
            Path(__file__).parents[2] / "config",
            {"model": MODEL | model, "training": training | {"ranks": ranks}},
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "training", [{"layout": "pipeline", "optimiser": "lamb"}, {"layout": "ddp", "compile": True}]
)
def test_what_a_layout_can_do_is_not(training: dict[str, Any]) -> None:
    assert layout_conflict(ModelConfig(**MODEL, dropout=0.1), TrainingConfig(**training), 2) is None


def test_one_rank_has_everything_whatever_the_layout() -> None:
    settings = TrainSettings(
        seed=1, model=MODEL | {"dropout": 0.1}, training={"layout": "tensor", "optimiser": "lamb"}
    )
    layout = make_layout(settings, Workers(0, 1, torch.device("cpu")))
    assert (layout.name, layout.data_size, layout.counted) == ("ddp", 1, 1.0)
