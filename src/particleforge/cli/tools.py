"""Commands that look: at the configuration, at files, at a run, at a site."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
import yaml

from particleforge.artefacts import check_outputs, write_text
from particleforge.cli.options import (
    NOT_GIVEN,
    ConfigDir,
    Detector,
    Preset,
    Set,
    app,
    load,
    only_files,
    overrides_of,
)
from particleforge.config import settings as stage
from particleforge.config.home import find_config_dir, find_snakefile, lay_out
from particleforge.config.load import load_detector, load_run
from particleforge.logs import quiet
from particleforge.pages.terminal import table_lines


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
) -> None:
    """Lay out a workflow folder: Snakefile, workflow/, config/ and profiles/, to be changed."""
    lay_out(folder)
    typer.echo(
        f"{folder}: cd there, then: snakemake --profile profiles/local --config preset=smoke"
    )


@app.command()
def show_config(
    detector: Detector, preset: Preset = None, set_: Set = None, config_dir: ConfigDir = NOT_GIVEN
) -> None:
    """Print the merged and validated configuration as YAML."""
    run, chosen = load(detector, preset, set_, config_dir)
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
def compare(
    metrics: Annotated[
        list[Path],
        typer.Argument(help="metrics.json of validations; others are compared with the first."),
    ],
    limits: Annotated[
        Path | None,
        typer.Option(help="YAML: figures, each with min, max, min_ratio or max_ratio."),
    ] = None,
    view: Annotated[
        list[str] | None,
        typer.Option(help="Show the figures of target, ideal, mlpf, baseline; default is mlpf."),
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Page to write.")] = None,
) -> None:
    """Print the figures of several validations side by side; exit status 1 if a limit is broken."""
    from particleforge.report.compare import compare as run
    from particleforge.report.compare import read_limits

    found = run(metrics, read_limits(limits) if limits else {}, view or ["mlpf"])
    rows = [found.table.heads, *found.table.rows]
    typer.echo("\n".join(found.models))
    typer.echo("\n".join(table_lines(rows, right=range(1, len(rows[0])))))
    if html is not None:
        check_outputs([html], [*metrics, *([limits] if limits else [])])
        write_text(html, found.page())
    for line in found.broken:
        typer.echo(f"limit broken: {line}", err=True)
    if found.broken:
        raise typer.Exit(1)


@app.command()
def inspect(
    file: Annotated[
        Path,
        typer.Argument(
            help="An EDM4hep or Delphes ROOT file.",
            exists=True,
            dir_okay=False,
            callback=only_files,
        ),
    ],
    detector: Annotated[
        str | None,
        typer.Option(help="Whose branch map to apply; default is the first of config.yaml."),
    ] = None,
    preset: Preset = None,
    set_: Set = None,
    config_dir: Annotated[
        Path | None,
        typer.Option("--config", "--config-dir", help="Folder with config.yaml and detectors/."),
    ] = NOT_GIVEN,
    every_event: Annotated[
        bool, typer.Option("--all", help="Try all events on the dataset stage, not the first 100.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print what a file holds, what is read as what, what is missing and what that costs.

    The detector's map says what is read. The file's first events go through the whole dataset
    stage; the exit status is 1 if that refuses them.
    """
    from particleforge.dataset.build import refusal
    from particleforge.inputs.inspection import EVENTS_LOOKED_AT, inspect_file

    config_folder = find_config_dir(config_dir)
    overrides = overrides_of(preset, set_)
    name = detector or load_run(config_folder, overrides, "--set").detector[0]
    run, chosen = load(name, preset, set_, config_dir)
    with quiet():  # the dataset stage reads the same events and warns of the same things
        found = inspect_file(file, chosen)
    if found.refused is None:
        settings = stage.dataset_settings(run, chosen, "files")
        found = replace(
            found, refused=refusal(settings, file, None if every_event else EVENTS_LOOKED_AT)
        )
    typer.echo(json.dumps(found.plain(), indent=2) if as_json else found.text())
    if found.refused is not None:
        raise typer.Exit(1)


@app.command()
def accounting(
    dataset: Annotated[
        list[Path],
        typer.Argument(
            help="Files that build-dataset wrote.", exists=True, dir_okay=False, callback=only_files
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Print the share of energy that is visible, in targets, merged or dropped, and the reasons.

    Each of the files that a dataset was made of has a row.
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

    overrides = overrides_of(preset, set_) | ({"detector": detector} if detector else {})
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
    config_dir: ConfigDir = NOT_GIVEN,
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
        run = load_run(config_folder, overrides_of(preset, set_) | chosen | folder, "--set")
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
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Submit one small job per kind to a Slurm cluster; say what is wrong with site or profile."""
    from particleforge.orchestration.cluster.check import KINDS
    from particleforge.orchestration.cluster.check import check_cluster as run_check

    found = run_check(
        profile,
        overrides_of(preset, set_),
        [find_config_dir(config_dir).absolute()],
        kind or list(KINDS),
        timeout_s,
    )
    for finding in found:
        typer.echo(finding.line())
    if any(finding.state == "WRONG" for finding in found):
        raise typer.Exit(1)
