"""Command line: every stage on files of your own, without Snakemake.

It calls the functions that the workflow calls.
"""

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from particleforge.config import settings as stage
from particleforge.config.detector import DetectorConfig
from particleforge.config.home import find_config_dir, find_snakefile
from particleforge.config.load import load_detector, load_run, merge
from particleforge.config.reader import parse_yaml
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.logs import log_to_terminal, one_line_errors

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Machine-learned particle flow, stage by stage. Settings come from config/ as in the"
        " workflow; --set changes one."
    ),
)

Detector = Annotated[str, typer.Option(help="Name of a file in config/detectors.")]
Preset = Annotated[
    str | None, typer.Option(help="Name of a file in config/presets; default is config.yaml's.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, e.g. training.max_steps=500; can be repeated."),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with config.yaml, presets/ and detectors/; default is ./config, else the"
        " shipped one."
    ),
]
Output = Annotated[Path, typer.Option(help="File to write.")]
Input = Annotated[Path, typer.Option("--input", help="File to read.", exists=True, dir_okay=False)]
Inputs = Annotated[
    list[Path],
    typer.Option("--input", help="File to read; can be repeated.", exists=True, dir_okay=False),
]
Sample = Annotated[str, typer.Option(help="Name of the sample, part of every event's identity.")]
WorkDir = Annotated[
    Path,
    typer.Option(
        help="Folder for what outlives a check: statistics of shards, a verdict that failed."
    ),
]

_CONFIG: Path | None = None
_WORK = Path("checks_work")


def _overrides(preset: str | None, assignments: list[str] | None) -> dict[str, Any]:
    """Turn ``--set a.b=1`` into nested keys; values are YAML."""
    found: dict[str, Any] = {"preset": preset} if preset else {}
    for assignment in assignments or []:
        key, separator, value = assignment.partition("=")
        if not separator or not key:
            raise UserError(f"--set {assignment}: must read key=value, e.g. training.max_steps=500")
        nested: Any = parse_yaml(value, f"--set {assignment}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        found = merge(found, nested)
    return found


def _load(
    detector: str, preset: str | None, assignments: list[str] | None, config_dir: Path | None
) -> tuple[RunConfig, DetectorConfig]:
    overrides = merge(_overrides(preset, assignments), {"detector": [detector]})
    folder = find_config_dir(config_dir)
    run = load_run(folder, overrides, "--set")
    return run, load_detector(folder, detector, run.simulation.published)


@app.command()
def simulate_events(
    detector: Detector,
    sample: Annotated[str, typer.Option(help="A sample of the detector's file.")],
    output: Output,
    shard: Annotated[
        int, typer.Option(min=0, help="Number of the shard; it seeds the events.")
    ] = 0,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Simulate one shard of a sample: an EDM4hep ROOT file."""
    from particleforge.paths import SHARD_FORMAT
    from particleforge.simulation.simulate import simulate_events as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    if sample not in chosen.samples:
        raise UserError(
            f"--sample {sample}: {detector} has the samples {', '.join(chosen.samples)}"
        )
    run_stage(stage.simulate_settings(run, chosen, sample), SHARD_FORMAT.format(shard), output)


@app.command()
def build_dataset(
    detector: Detector,
    inputs: Annotated[
        list[str],
        typer.Option("--input", help="ROOT file, folder of them, or glob; can be repeated."),
    ],
    output: Output,
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Turn EDM4hep or Delphes ROOT files into a Parquet table of events with truth and targets."""
    from particleforge.dataset.build import build_dataset as run_stage
    from particleforge.inputs.sources import local_files

    run, chosen = _load(detector, preset, set_, config_dir)
    files = [Path(path) for entry in inputs for path in local_files(entry, "--input")]
    known = chosen.samples[sample].checksums if sample in chosen.samples else {}
    checksums = [known.get(path.name, "") for path in files]
    run_stage(
        stage.dataset_settings(run, chosen, sample, checksums if any(checksums) else ()),
        files,
        output,
    )


@app.command()
def check_dataset(
    detector: Detector,
    inputs: Inputs,
    output: Output,
    work_dir: WorkDir = _WORK,
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Check all shards of one sample of a dataset and write the verdict, JSON."""
    from particleforge.checks.dataset import check_dataset as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.CheckDatasetSettings.of(run, chosen, sample_name=sample),
        shards=inputs,
        work_dir=work_dir,
        output=output,
    )


@app.command()
def compare_samples(
    detector: Detector,
    inputs: Inputs,
    output: Output,
    work_dir: WorkDir = _WORK,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Compare the samples of a dataset, given by their verdicts, and write the verdict, JSON."""
    from particleforge.checks.dataset import compare_samples as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.CompareSamplesSettings.of(run, chosen),
        verdicts=inputs,
        work_dir=work_dir,
        output=output,
    )


@app.command()
def select_events(
    detector: Detector,
    events: Input,
    output: Output,
    cutflow: Annotated[Path, typer.Option(help="JSON with the counts after each cut.")],
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Apply the cuts to a dataset and give each event its split."""
    from particleforge.selection.select import select_events as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.SelectSettings.of(run, chosen, sample_name=sample),
        dataset=events,
        output=output,
        cutflow=cutflow,
    )


@app.command()
def write_shards(
    detector: Detector,
    inputs: Inputs,
    output_dir: Annotated[
        Path,
        typer.Option(help="Folder to write: manifest, normalisation and the shards of each split."),
    ],
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Turn selected events into shuffled training shards."""
    from particleforge.preprocessing.shards import write_shards as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(stage.ShardSettings.of(run, chosen), inputs, output_dir)


@app.command()
def check_shards(
    detector: Detector,
    manifest: Annotated[
        Path, typer.Option(help="manifest.json of the shards.", exists=True, dir_okay=False)
    ],
    output: Output,
    work_dir: WorkDir = _WORK,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Check training shards against manifest and normalisation and write the verdict as JSON."""
    from particleforge.checks.shards import check_shards as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.CheckShardsSettings.of(run, chosen),
        manifest=manifest,
        normalisation=manifest.with_name("normalisation.json"),
        work_dir=work_dir,
        output=output,
    )


@app.command()
def train_model(
    detector: Detector,
    manifest: Annotated[
        Path, typer.Option(help="manifest.json of the shards.", exists=True, dir_okay=False)
    ],
    output_dir: Annotated[
        Path,
        typer.Option(
            help="Folder to write: best.pt, last.pt, metrics.parquet, tensorboard/, work/."
        ),
    ],
    settings: Annotated[
        Path | None, typer.Option(help="best.yaml of a search, laid over the settings.")
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Train a model; run again to resume."""
    from particleforge.training.train import train_model as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.TrainSettings.of(run, chosen),
        manifest=manifest,
        best_settings=settings,
        work_dir=output_dir / "work",
        model=output_dir / "best.pt",
        last=output_dir / "last.pt",
        metrics=output_dir / "metrics.parquet",
        tensorboard=output_dir / "tensorboard",
    )


@app.command()
def export_onnx(
    detector: Detector,
    checkpoint: Annotated[
        Path, typer.Option(help="best.pt of a training.", exists=True, dir_okay=False)
    ],
    manifest: Annotated[
        Path,
        typer.Option(
            help="manifest.json of the shards, for the parity test.", exists=True, dir_okay=False
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write: model.onnx, parity.json, model_card.md.")
    ],
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Export a trained model to ONNX and compare it with torch on real events."""
    from particleforge.export.onnx_model import export_onnx as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.ExportSettings.of(run, chosen),
        checkpoint=checkpoint,
        manifest=manifest,
        onnx=output_dir / "model.onnx",
        parity=output_dir / "parity.json",
        model_card=output_dir / "model_card.md",
    )


@app.command()
def reconstruct_events(
    detector: Detector,
    events: Input,
    model: Annotated[
        Path, typer.Option(help="model.onnx of an export.", exists=True, dir_okay=False)
    ],
    output: Output,
    edm4hep: Annotated[Path, typer.Option(help="EDM4hep ROOT file to write.")],
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Reconstruct all events of an EDM4hep ROOT file or of a dataset.

    Of a selected file, those of the configured splits.
    """
    from particleforge.dataset.build import build_dataset as build
    from particleforge.reconstruction.reconstruct import reconstruct_events as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    settings = stage.ReconstructSettings.of(run, chosen)
    files = {"model": model, "output": output, "edm4hep": edm4hep}
    if events.suffix == ".parquet":
        run_stage(settings, events=events, **files)
        return
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / f"{events.stem}.parquet"
        build(stage.dataset_settings(run, chosen, sample), [events], table)
        run_stage(settings, events=table, **files, built_from=events)


@app.command()
def validate_model(
    detector: Detector,
    selected: Annotated[
        list[Path],
        typer.Option(help="Selected file; can be repeated.", exists=True, dir_okay=False),
    ],
    reconstructed: Annotated[
        list[Path],
        typer.Option(help="Reconstructed file, same order.", exists=True, dir_okay=False),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write: metrics.json, histograms.json, plots/.")
    ],
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Compare model, baseline and truth limit: jets, missing momentum, particles."""
    from particleforge.validation.validate import validate_model as run_stage

    run, chosen = _load(detector, preset, set_, config_dir)
    run_stage(
        stage.ValidateSettings.of(run, chosen),
        selected=selected,
        reconstructed=reconstructed,
        metrics=output_dir / "metrics.json",
        histograms=output_dir / "histograms.json",
        plots=output_dir / "plots",
    )


@app.command()
def show_config(
    detector: Detector, preset: Preset = None, set_: Set = None, config_dir: ConfigDir = _CONFIG
) -> None:
    """Print the merged and validated configuration as YAML."""
    run, chosen = _load(detector, preset, set_, config_dir)
    content = {
        **run.model_dump(mode="json"),
        "detector": {detector: chosen.model_dump(mode="json")},
    }
    typer.echo(yaml.safe_dump(content, sort_keys=False), nl=False)


@app.command()
def provenance(
    file: Annotated[
        Path,
        typer.Argument(help="A file or folder that a stage wrote, by the workflow or by hand."),
    ],
    verify: Annotated[
        bool, typer.Option(help="Compare every file with the recorded checksums.")
    ] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print all records as JSON.")] = False,
) -> None:
    """Print what a file was made from, back to the seeds.

    Exit status 1 if something has changed since or is missing.
    """
    from particleforge.provenance.lineage import read_lineage, verify_lineage
    from particleforge.provenance.lineage_text import lineage_text

    lineage = read_lineage(file)
    if verify:
        verify_lineage(lineage)
    typer.echo(json.dumps(lineage.plain(), indent=2) if as_json else lineage_text(lineage))
    if lineage.problems():
        raise typer.Exit(1)


@app.command()
def inspect(
    file: Annotated[
        Path, typer.Argument(help="An EDM4hep or Delphes ROOT file.", exists=True, dir_okay=False)
    ],
    detector: Annotated[
        str | None,
        typer.Option(help="Whose branch map to apply; default is the first of config.yaml."),
    ] = None,
    config_dir: Annotated[
        Path | None,
        typer.Option("--config", "--config-dir", help="Folder with config.yaml and detectors/."),
    ] = _CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print what a file holds, what is read as what, what is missing and what that costs.

    The detector's map says what is read. The exit status is 1 if the file is unusable.
    """
    from particleforge.inputs.inspection import inspect_file

    config_folder = find_config_dir(config_dir)
    name = detector or load_run(config_folder).detector[0]
    found = inspect_file(file, load_detector(config_folder, name))
    typer.echo(json.dumps(found.plain(), indent=2) if as_json else found.text())
    if found.refused is not None:
        raise typer.Exit(1)


@app.command()
def accounting(
    dataset: Annotated[
        list[Path],
        typer.Argument(help="Files that build-dataset wrote.", exists=True, dir_okay=False),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the share of each file's energy that is visible, in targets, merged or dropped.

    The files are those that datasets were made of. Reasons are printed, too.
    """
    from particleforge.dataset.accounting import accounting_plain, accounting_text

    typer.echo(
        json.dumps(accounting_plain(dataset), indent=2) if as_json else accounting_text(dataset)
    )


@app.command()
def status(
    detector: Annotated[
        str | None, typer.Option(help="Names, separated by commas; default is config.yaml's.")
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    snakefile: Annotated[
        Path | None,
        typer.Option(help="Default: the one here, else that of the installed checkout."),
    ] = None,
) -> None:
    """Show what exists here, what is stale and why, and what the workflow would run."""
    from particleforge.orchestration.status import read_status

    overrides = _overrides(preset, set_) | ({"detector": detector} if detector else {})
    typer.echo(read_status(snakefile or find_snakefile(), overrides).text())


@app.command()
def hpo_status(
    work: Annotated[
        Path | None,
        typer.Argument(help="A search's work folder; default is that of the configuration."),
    ] = None,
    detector: Annotated[
        str | None, typer.Option(help="Names, separated by commas; default is config.yaml's.")
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; default is config.yaml's results_dir."),
    ] = None,
    study: Annotated[
        str | None,
        typer.Option(help="Name of a study, or its beginning; default is the present search's."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Show how a search stands: its rungs, the best so far, what runs and what failed."""
    from particleforge.hpo.progress import read_progress, read_work_folder
    from particleforge.paths import Paths

    if work is not None:
        found = [read_work_folder(work, study)]
    else:
        chosen = {"detector": detector} if detector else {}
        folder = {"results_dir": str(results)} if results else {}
        config_folder = find_config_dir(config_dir)
        run = load_run(config_folder, _overrides(preset, set_) | chosen | folder, "--set")
        paths, found = Paths(run.results_dir), []
        for name in run.detector:
            settings = stage.HpoSettings.of(run, load_detector(config_folder, name))
            manifest, work_dir = (
                Path(pattern.format(detector=name)) for pattern in (paths.manifest, paths.hpo_work)
            )
            found.append(read_progress(settings, manifest, work_dir, study))
    typer.echo(
        json.dumps([p.plain() for p in found], indent=2)
        if as_json
        else "\n\n".join(p.text() for p in found)
    )


@app.command()
def check_cluster(
    profile: Annotated[Path, typer.Option(help="Folder of the Snakemake profile to try.")] = Path(
        "profiles/slurm"
    ),
    kind: Annotated[
        list[str] | None,
        typer.Option(help="Kind of job to submit: cpu, gpu, nodes; can be repeated. Default: all."),
    ] = None,
    timeout_s: Annotated[
        float, typer.Option(help="How long to wait for the jobs, seconds.")
    ] = 600.0,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = _CONFIG,
) -> None:
    """Submit one small job per kind to a Slurm cluster and say what is wrong.

    The site or the profile may have got it wrong.
    """
    from particleforge.orchestration.cluster.check import KINDS
    from particleforge.orchestration.cluster.check import check_cluster as run_check

    found = run_check(
        profile,
        _overrides(preset, set_),
        [find_config_dir(config_dir).absolute()],
        kind or list(KINDS),
        timeout_s,
    )
    for finding in found:
        typer.echo(finding.line())
    if any(finding.state == "WRONG" for finding in found):
        raise typer.Exit(1)


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 1."""
    log_to_terminal()
    with one_line_errors():
        app()
