"""What commands share: the options that several have, and the configuration that they name."""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from particleforge.config.detector import DetectorConfig
from particleforge.config.home import find_config_dir
from particleforge.config.load import load_detector, load_run, merge
from particleforge.config.reader import parse_yaml
from particleforge.config.run import RunConfig
from particleforge.errors import UserError
from particleforge.stored import check_regular

_Given = TypeVar("_Given", Path, list[Path])
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help=(
        "Machine-learned particle flow, stage by stage. Settings come from config/ as in the"
        " workflow; --set changes one."
    ),
)


def only_files(given: _Given) -> _Given:
    """Refuse pipes and devices among the files that were given."""
    for path in given if isinstance(given, list) else [given]:
        if path is not None:
            check_regular(path)
    return given


Detector = Annotated[str, typer.Option(help="Name of a file in config/detectors.")]
Preset = Annotated[
    str | None, typer.Option(help="Name of a file in config/presets; default is config.yaml's.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, e.g. training.learning_rate=0.002; can be repeated."),
]
ConfigDir = Annotated[
    Path | None,
    typer.Option(
        help="Folder with config.yaml, presets/ and detectors/; default is ./config, else the"
        " shipped one."
    ),
]
Output = Annotated[Path, typer.Option(help="File to write.")]
Input = Annotated[
    Path,
    typer.Option("--input", help="File to read.", exists=True, dir_okay=False, callback=only_files),
]
Inputs = Annotated[
    list[Path],
    typer.Option(
        "--input",
        help="File to read; can be repeated.",
        exists=True,
        dir_okay=False,
        callback=only_files,
    ),
]
Sample = Annotated[str, typer.Option(help="Name of the sample, part of every event's identity.")]
WorkDir = Annotated[
    Path,
    typer.Option(
        help="Folder for what outlives a check: statistics of shards, a verdict that failed."
    ),
]

NOT_GIVEN: Path | None = None
CHECKS_WORK = Path("checks_work")


def overrides_of(preset: str | None, assignments: list[str] | None) -> dict[str, Any]:
    """Turn ``--set a.b=1`` into nested keys; values are YAML."""
    found: dict[str, Any] = {"preset": preset} if preset else {}
    for assignment in assignments or []:
        key, separator, value = assignment.partition("=")
        if not separator or not key:
            raise UserError(
                f"--set {assignment}: must read key=value, e.g. training.learning_rate=0.002"
            )
        nested: Any = parse_yaml(value, f"--set {assignment}")
        for part in reversed(key.split(".")):
            nested = {part: nested}
        found = merge(found, nested)
    return found


def load(
    detector: str, preset: str | None, assignments: list[str] | None, config_dir: Path | None
) -> tuple[RunConfig, DetectorConfig]:
    """Return the configuration of a command and its detector; UserError for mistakes in them."""
    overrides = merge(overrides_of(preset, assignments), {"detector": [detector]})
    folder = find_config_dir(config_dir)
    run = load_run(folder, overrides, "--set")
    return run, load_detector(folder, detector, run.simulation.published)
