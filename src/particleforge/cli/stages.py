"""Commands that run one stage on files of your own, as the workflow's jobs do."""

from pathlib import Path
from typing import Annotated

import typer

from particleforge.artefacts import check_foreign, check_outputs
from particleforge.cli.options import (
    CHECKS_WORK,
    NOT_GIVEN,
    ConfigDir,
    Detector,
    Input,
    Inputs,
    Output,
    Preset,
    Sample,
    Set,
    WorkDir,
    app,
    load,
    only_files,
)
from particleforge.config import settings as stage
from particleforge.errors import UserError


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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Simulate one shard of a sample: an EDM4hep ROOT file."""
    from particleforge.paths import SHARD_FORMAT
    from particleforge.simulation.simulate import simulate_events as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Turn EDM4hep or Delphes ROOT files into a Parquet table of events with truth and targets."""
    from particleforge.dataset.build import build_dataset as run_stage
    from particleforge.inputs.sources import local_files

    run, chosen = load(detector, preset, set_, config_dir)
    files = [Path(path) for entry in inputs for path in local_files(entry, "--input")]
    check_outputs([output], files)
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
    work_dir: WorkDir = CHECKS_WORK,
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Check all shards of one sample of a dataset and write the verdict, JSON."""
    from particleforge.checks.dataset import check_dataset as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    check_outputs([output], inputs)
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
    work_dir: WorkDir = CHECKS_WORK,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Compare the samples of a dataset, given by their verdicts, and write the verdict, JSON."""
    from particleforge.checks.dataset import compare_samples as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    check_outputs([output], inputs)
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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Apply the cuts to a dataset and give each event its split."""
    from particleforge.selection.select import select_events as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    check_outputs([output, cutflow], [events])
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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Turn selected events into shuffled training shards."""
    from particleforge.preprocessing.shards import ENTRIES
    from particleforge.preprocessing.shards import write_shards as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    check_outputs([], inputs, [output_dir])
    check_foreign(output_dir, ENTRIES, "training shards")
    run_stage(stage.ShardSettings.of(run, chosen), inputs, output_dir)


@app.command()
def check_shards(
    detector: Detector,
    manifest: Annotated[
        Path,
        typer.Option(
            help="manifest.json of the shards.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    output: Output,
    work_dir: WorkDir = CHECKS_WORK,
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Check training shards against manifest and normalisation and write the verdict as JSON."""
    from particleforge.checks.shards import check_shards as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    beside = manifest.with_name("normalisation.json")
    check_outputs([output], [manifest, beside])
    run_stage(
        stage.CheckShardsSettings.of(run, chosen),
        manifest=manifest,
        normalisation=beside,
        work_dir=work_dir,
        output=output,
    )


@app.command()
def train_model(
    detector: Detector,
    manifest: Annotated[
        Path,
        typer.Option(
            help="manifest.json of the shards.", exists=True, dir_okay=False, callback=only_files
        ),
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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Check the shards as check-shards does, then train a model; run again to resume."""
    from particleforge.checks.shards import check_shards as run_checks
    from particleforge.training.train import train_model as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    beside = manifest.with_name("normalisation.json")
    check_outputs([output_dir / "best.pt"], [manifest, beside], [output_dir / "work"])
    run_checks(
        stage.CheckShardsSettings.of(run, chosen),
        manifest=manifest,
        normalisation=beside,
        work_dir=output_dir / "checks",
        output=output_dir / "checks" / "shards.json",
    )
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
        Path,
        typer.Option(
            help="best.pt of a training.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    manifest: Annotated[
        Path,
        typer.Option(
            help="manifest.json of the shards, for parity test and presence threshold.",
            exists=True,
            dir_okay=False,
            callback=only_files,
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write: model.onnx, parity.json, model_card.md.")
    ],
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Export a trained model to ONNX and compare it with torch on real events."""
    from particleforge.export.onnx_model import export_onnx as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    written = [output_dir / name for name in ("model.onnx", "parity.json", "model_card.md")]
    check_outputs(written, [checkpoint, manifest])
    run_stage(
        stage.ExportSettings.of(run, chosen),
        detector=detector,
        checkpoint=checkpoint,
        manifest=manifest,
        onnx=written[0],
        parity=written[1],
        model_card=written[2],
    )


@app.command()
def reconstruct_events(
    detector: Detector,
    events: Input,
    model: Annotated[
        Path,
        typer.Option(
            help="model.onnx of an export.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    output: Output,
    edm4hep: Annotated[Path, typer.Option(help="EDM4hep ROOT file to write.")],
    sample: Sample = "files",
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Reconstruct all events of an EDM4hep or Delphes ROOT file, or of a dataset.

    A ROOT file needs no truth. Of a file of selected events, only those of the configured splits
    are reconstructed.
    """
    from particleforge.reconstruction.reconstruct import reconstruct_events as run_stage
    from particleforge.reconstruction.reconstruct import reconstruct_file

    run, chosen = load(detector, preset, set_, config_dir)
    settings = stage.ReconstructSettings.of(run, chosen)
    check_outputs([output, edm4hep], [events, model])
    files = {"model": model, "output": output, "edm4hep": edm4hep}
    if events.suffix == ".parquet":
        run_stage(settings, events=events, **files)
    else:
        reconstruct_file(settings, stage.dataset_settings(run, chosen, sample), events, **files)


@app.command()
def validate_model(
    detector: Detector,
    selected: Annotated[
        list[Path],
        typer.Option(
            help="Selected file; can be repeated.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    reconstructed: Annotated[
        list[Path],
        typer.Option(
            help="Reconstructed file, same order.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option(help="Folder to write: metrics.json, histograms.json, plots/.")
    ],
    preset: Preset = None,
    set_: Set = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Compare model, baseline, ideal particle flow and targets with truth."""
    from particleforge.validation.validate import validate_model as run_stage

    run, chosen = load(detector, preset, set_, config_dir)
    metrics, histograms = output_dir / "metrics.json", output_dir / "histograms.json"
    plots = output_dir / "plots"
    check_outputs([metrics, histograms], [*selected, *reconstructed], [plots])
    run_stage(
        stage.ValidateSettings.of(run, chosen),
        selected=selected,
        reconstructed=reconstructed,
        metrics=metrics,
        histograms=histograms,
        plots=plots,
    )
