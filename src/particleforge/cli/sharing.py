"""The command that lays out a model or data for others."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from particleforge.cli.options import NOT_GIVEN, ConfigDir, Detector, app, only_files
from particleforge.config.home import find_config_dir
from particleforge.config.load import load_run


class What(StrEnum):
    """What can be shared."""

    MODEL = "model"
    SHARDS = "shards"
    EVENTS = "events"


@app.command()
def publish(
    folder: Annotated[Path, typer.Argument(help="A new folder, or an empty one.")],
    detector: Detector,
    licence: Annotated[
        str, typer.Option("--license", help="apache-2.0, cc-by-4.0, cc0-1.0, or another's name.")
    ],
    what: Annotated[
        What, typer.Option(help="A trained model, training shards, or selected events.")
    ] = What.MODEL,
    licence_file: Annotated[
        Path | None,
        typer.Option(
            "--license-file",
            help="The text of another licence.",
            exists=True,
            dir_okay=False,
            callback=only_files,
        ),
    ] = None,
    results: Annotated[
        Path | None,
        typer.Option(help="Folder of the results; default is config.yaml's results_dir."),
    ] = None,
    source: Annotated[
        Path | None,
        typer.Option(
            help="Folder with the files, instead of the results: model.onnx, best.pt, model_card.md"
            " and metrics.json; manifest.json and its shards; or <sample>/<shard>.parquet."
        ),
    ] = None,
    config_dir: ConfigDir = NOT_GIVEN,
) -> None:
    """Lay out a model or data of a run as a folder of the Hugging Face hub; uploads nothing."""
    from particleforge.paths import Paths
    from particleforge.publishing import data, model
    from particleforge.publishing.folder import read_licence, write_folder

    chosen = {"results_dir": str(results)} if results else {}
    paths = Paths(load_run(find_config_dir(config_dir), chosen, "--results").results_dir)
    if what is What.MODEL:
        contents = model.model_contents(model.model_files(paths, detector, source), detector)
    elif what is What.SHARDS:
        contents = data.shards_contents(data.shards_manifest(paths, detector, source), detector)
    else:
        contents = data.events_contents(data.selected_files(paths, detector, source), detector)
    write_folder(folder, contents, read_licence(licence, licence_file))
    typer.echo(f"{folder}: look at README.md, then: hf upload NAME {folder} .{_KIND[what]}")


_KIND = {What.MODEL: "", What.SHARDS: " --repo-type dataset", What.EVENTS: " --repo-type dataset"}
