"""What the package imports is required, and what is required is pinned once."""

import ast
import re
import sys
from pathlib import Path

import particleforge

ROOT = Path(__file__).parents[2]
OTHER_NAMES = {"pydantic_core": "pydantic", "yaml": "pyyaml"}
NOT_IMPORTED = {  # needed all the same
    "onnxscript",  # by torch's export
    "psycopg2-binary",  # by SQLAlchemy, for studies in PostgreSQL
    "scikit-learn",  # by Optuna's fANOVA
    "snakemake-executor-plugin-slurm",  # by Snakemake
    "tensorboard",  # by torch's SummaryWriter
}
OPTIONAL = {"mlflow"}  # an extra of pyproject.toml; its package is mlflow-skinny


def names(file: str) -> list[str]:
    lines = (ROOT / file).read_text().splitlines()
    return [normal(re.split("[=<>]", line)[0]) for line in lines if line[0] not in "#-"]


def normal(name: str) -> str:
    return re.sub("[-_.]+", "-", name).lower()


def imported() -> set[str]:
    """Return what the package imports, by the names of the registry."""
    tops = set()
    for path in Path(particleforge.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                tops |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                tops.add(node.module.partition(".")[0])
    others = tops - set(sys.stdlib_module_names) - {"particleforge"}
    return {OTHER_NAMES.get(top, top) for top in others}


def test_what_is_imported_is_required_and_the_other_way_round() -> None:
    assert set(names("requirements.in")) == (imported() - OPTIONAL) | NOT_IMPORTED


def test_every_requirement_is_pinned_where_it_belongs() -> None:
    running, developing = names("requirements.txt"), names("requirements-dev.txt")
    assert len({*running, *developing}) == len(running) + len(developing)
    assert set(running) >= set(names("requirements.in"))
    assert {*running, *developing} >= set(names("requirements-dev.in"))
    assert not {"pytest", "mypy", "ruff", "optuna-dashboard"} & set(running)
