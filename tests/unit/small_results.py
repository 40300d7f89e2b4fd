"""Dataset, selected files and training shards of random events, where a run leaves them."""

from pathlib import Path

from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import SelectSettings, ShardSettings
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events

from .synthetic import synthetic_events, write_dataset

ROOT = Path(__file__).parents[2]
SAMPLES = ("qq", "ttbar")


def make_results(folder: Path) -> Path:
    """Write them below ``folder``/results/clic and return ``folder``."""
    run = load_run(ROOT / "config", {"preset": "smoke"})
    detector = load_detector(ROOT / "config", "clic")
    selected = []
    for number, sample in enumerate(SAMPLES):
        source = folder / f"results/clic/dataset/{sample}/00000.parquet"
        source.parent.mkdir(parents=True)
        write_dataset(source, synthetic_events(60, number, mean_particles=15), sample=sample)
        selected.append(folder / f"results/clic/select/{sample}/00000.parquet")
        select_events(
            SelectSettings.of(run, detector, sample_name=sample),
            dataset=source,
            output=selected[-1],
            cutflow=selected[-1].with_suffix(".cutflow.json"),
        )
    write_shards(ShardSettings.of(run, detector), selected, folder / "results/clic/shards")
    return folder
