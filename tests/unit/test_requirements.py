"""What the package imports is required, and what is required is pinned once."""

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import particleforge

ROOT = Path(__file__).parents[2]
NOT_IMPORTED = {  # needed all the same
    "onnxscript",  # by torch's export
    "psycopg2-binary",  # by SQLAlchemy, for studies in PostgreSQL
    "snakemake-executor-plugin-slurm",  # by Snakemake
    "tensorboard",  # by torch's SummaryWriter
}


def names(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [normal(re.split("[=<>]", line)[0]) for line in lines if line[0] not in "#-"]


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Return the distributions of what the package imports; pydantic has its core pinned itself."""
    tops = set()
    for path in Path(particleforge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                tops.add(node.module.partition(".")[0])
    others = tops - set(sys.stdlib_module_names) - {"particleforge"}
    found = packages_distributions()
    return {normal(name) for top in others for name in found[top]} - {"pydantic-core"}


def test_what_is_imported_is_required_and_the_other_way_round() -> None:
    assert set(names("requirements.in")) == imported() | NOT_IMPORTED


def test_every_requirement_is_pinned_where_it_belongs() -> None:
    running, developing = names("requirements.txt"), names("requirements-dev.txt")
    assert len({*running, *developing}) == len(running) + len(developing)
    assert set(running) >= set(names("requirements.in"))
    assert {*running, *developing} >= set(names("requirements-dev.in"))
    assert not {"pytest", "mypy", "ruff", "optuna-dashboard"} & set(running)
