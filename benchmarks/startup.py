"""What a job costs before its work starts: Snakemake, parsing this workflow, importing a stage.

    python benchmarks/startup.py [--repeats 3]

Prints medians; the last line is one JSON object of figures.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = (
    "simulation.simulate",
    "dataset.build",
    "selection.select",
    "preprocessing.shards",
    "hpo.slot",
    "training.train",
    "export.onnx_model",
    "reconstruction.reconstruct",
    "validation.validate",
    "report.build",
)


def seconds(command: list[str], cwd: Path, repeats: int) -> float:
    """Return the median wall time of a command."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        subprocess.run(command, cwd=cwd, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    repeats = parser.parse_args().repeats
    snakemake = str(Path(sys.executable).parent / "snakemake")
    figures = {}
    with tempfile.TemporaryDirectory() as folder:
        empty = Path(folder) / "Snakefile"
        empty.write_text("rule all:\n")
        figures["snakemake_start_seconds"] = seconds(
            [snakemake, "--list-rules", "--quiet"], empty.parent, repeats
        )
    with_workflow = seconds([snakemake, "--list-rules", "--quiet"], ROOT, repeats)
    figures["parse_seconds"] = with_workflow - figures["snakemake_start_seconds"]
    python = seconds([sys.executable, "-c", "pass"], ROOT, repeats)
    for stage in STAGES:
        figures[f"import_{stage.split('.')[0]}_seconds"] = (
            seconds([sys.executable, "-c", f"import particleforge.{stage}"], ROOT, repeats) - python
        )
    for name, value in figures.items():
        print(f"{name:32s} {value:6.2f}")
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}))


if __name__ == "__main__":
    main()
