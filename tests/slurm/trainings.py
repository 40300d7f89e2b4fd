"""A training alone, on shards of random events, through the workflow's own rule."""

import sys
from pathlib import Path

from chain import Chain

sys.path.insert(0, str(Path(__file__).parents[1] / "unit"))

from synthetic_shards import write_synthetic

TARGET = ("results/clic/train/best.pt", "--allowed-rules", "train_model")


def new_chain(folder: Path) -> Chain:
    """Return a chain that lacks the training only, whose shards passed and whose search found
    nothing to change.
    """
    chain = Chain.new(folder)
    write_synthetic(chain.results / "shards")
    (chain.results / "checks").mkdir()
    (chain.results / "checks/shards.json").write_text("{}")
    (chain.results / "hpo").mkdir()
    (chain.results / "hpo/best.yaml").write_text("model: {}\ntraining: {}\n")
    return chain
