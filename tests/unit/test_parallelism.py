"""Parallelism that model, training or ranks do not allow: one line each, before any rank starts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from particleforge.config.load import load_run
from particleforge.config.model import ModelConfig
from particleforge.config.parallelism import parallelism_conflict
from particleforge.config.settings import TrainSettings
from particleforge.config.training import TrainingConfig
from particleforge.errors import UserError
from particleforge.training.distributed import Workers
from particleforge.training.parallelism import make_parallelism

MODEL = {"width": 16, "n_layers": 4, "n_heads": 4}
REFUSED: list[tuple[int, dict[str, Any], dict[str, Any], str]] = [
    (
        3,
        {},
        {"parallelism": "tensor"},
        r"training\.ranks: 3 is no multiple of training\.model_parallel_ranks = 2, which",
    ),
    (
        3,
        {},
        {"parallelism": "pipeline"},
        r"training\.ranks: 3 is no multiple of training\.model_parallel_ranks = 2, which",
    ),
    (
        3,
        {},
        {"parallelism": "tensor", "model_parallel_ranks": 3},
        r"model\.n_heads: 4 cannot be dealt to training\.model_parallel_ranks = 3",
    ),
    (
        2,
        {"feedforward_factor": 33 / 16},
        {"parallelism": "tensor"},
        r"model\.width \* model\.feedforward_factor: 33 cannot be dealt to",
    ),
    (
        2,
        {"dropout": 0.1},
        {"parallelism": "tensor"},
        r"model\.dropout: 0\.1 with training\.parallelism = tensor would drop the same units",
    ),
    (
        2,
        {"backbone": "gnn_lsh"},
        {"parallelism": "tensor"},
        r"training\.parallelism: tensor divides layers of attention, not of",
    ),
    (
        2,
        {"n_layers": 1},
        {"parallelism": "pipeline"},
        r"model\.n_layers: 1 layers are too few for training\.model_parallel_ranks = 2",
    ),
    (
        2,
        {},
        {"parallelism": "zero2", "optimiser": "lamb"},
        r"training\.optimiser: lamb needs the norms of whole tensors, which",
    ),
    (
        2,
        {},
        {"parallelism": "fsdp", "compile": True},
        r"training\.compile: not with training\.parallelism = fsdp; set it to false, or use ddp$",
    ),
]


@pytest.mark.parametrize(("ranks", "model", "training", "line"), REFUSED)
def test_what_a_parallelism_cannot_do_is_refused(
    ranks: int, model: dict[str, Any], training: dict[str, Any], line: str
) -> None:
    settings = TrainSettings(seed=1, model=MODEL | model, training=training)
    with pytest.raises(UserError, match=f"^{line}"):
        make_parallelism(settings, Workers(0, ranks, torch.device("cpu")))
    with pytest.raises(UserError, match=line) as caught:
        load_run(
            Path(__file__).parents[2] / "config",
            {"model": MODEL | model, "training": training | {"ranks": ranks}},
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "training",
    [{"parallelism": "pipeline", "optimiser": "lamb"}, {"parallelism": "ddp", "compile": True}],
)
def test_what_a_parallelism_can_do_is_not(training: dict[str, Any]) -> None:
    assert (
        parallelism_conflict(ModelConfig(**MODEL, dropout=0.1), TrainingConfig(**training), 2)
        is None
    )


def test_one_rank_has_everything_whatever_the_parallelism() -> None:
    settings = TrainSettings(
        seed=1,
        model=MODEL | {"dropout": 0.1},
        training={"parallelism": "tensor", "optimiser": "lamb"},
    )
    parallelism = make_parallelism(settings, Workers(0, 1, torch.device("cpu")))
    assert (parallelism.name, parallelism.data_size, parallelism.counted) == ("ddp", 1, 1.0)
