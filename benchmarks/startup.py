"""What a job costs before its work starts: Snakemake, parsing this workflow, importing a stage.

    python benchmarks/startup.py [--repeats 3]

Prints medians; the last line is one JSON object of figures. ``config_<preset>_cpu_seconds`` is what
reading and checking the configuration costs in every job, ``parse_<preset>_cpu_seconds`` the whole
parse of the Snakefile beyond Snakemake's own start. Both are processor time: a busy machine shifts
them little.
"""

import argparse
import json
import resource
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


def cpu_seconds(command: list[str], cwd: Path, repeats: int) -> float:
    """Return the median processor time of a command."""
    times = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=cwd, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return statistics.median(times)


def config_cpu_seconds(preset: str, repeats: int) -> float:
    """Return the median processor time of what a parse asks of the configuration, imports apart."""
    program = (
        "import time\nfrom pathlib import Path\n"
        "from particleforge.orchestration.workflow import Workflow\nstart = time.process_time()\n"
        f"Workflow([Path('config')], {{'preset': '{preset}'}})\nprint(time.process_time() - start)"
    )
    command = [sys.executable, "-c", program]
    return statistics.median(
        float(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)
        for _ in range(repeats)
    )


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
        rules = [snakemake, "--list-rules", "--quiet"]
        figures["snakemake_start_seconds"] = seconds(rules, empty.parent, repeats)
        start_cpu = cpu_seconds(rules, empty.parent, repeats)
    with_workflow = seconds(rules, ROOT, repeats)
    figures["parse_seconds"] = with_workflow - figures["snakemake_start_seconds"]
    for preset in sorted(path.stem for path in (ROOT / "config/presets").glob("*.yaml")):
        figures[f"config_{preset}_cpu_seconds"] = config_cpu_seconds(preset, repeats)
        chosen = [*rules, "--config", f"preset={preset}"]
        figures[f"parse_{preset}_cpu_seconds"] = cpu_seconds(chosen, ROOT, repeats) - start_cpu
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
