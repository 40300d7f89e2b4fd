"""Validations side by side: what is shown, which limits are broken, and the exit status."""

import copy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from particleforge.artefacts import write_json, write_text
from particleforge.cli import app
from particleforge.errors import UserError

RESOLUTION = "jets.inclusive.mlpf.response.resolution"


def metrics(resolution: float | None, baseline: float = 0.07) -> dict[str, Any]:
    def jets(value: float | None) -> dict[str, Any]:
        return {
            "response": {"n": 100, "resolution": {"value": value, "error": 0.002}},
            "efficiency": {"value": 0.9, "low": 0.88, "high": 0.92, "passed": 90, "total": 100},
        }

    of_all = {"inclusive": {"mlpf": jets(resolution), "baseline": jets(baseline)}, "pt_bins": []}
    return {
        **{"kind": "validation_metrics", "n_events": 100, "reconstructions": ["mlpf", "baseline"]},
        **{"jets": of_all, "by_sample": {"qq": {"jets": copy.deepcopy(of_all)}}},
        "gap_closed": {"jets": {"value": 0.5, "error": 0.1}},
    }


@pytest.fixture
def run(tmp_path: Path) -> Any:
    def compared(*resolutions: float | None, limits: str = "", more: tuple[str, ...] = ()) -> Any:
        paths = []
        for number, resolution in enumerate(resolutions):
            paths.append(str(tmp_path / f"{number}.json"))
            write_json(Path(paths[-1]), metrics(resolution))
        write_text(tmp_path / "limits.yaml", limits)
        return CliRunner().invoke(
            app, ["compare", *paths, "--limits", str(tmp_path / "limits.yaml"), *more]
        )

    return compared


def test_figures_stand_side_by_side(run: Any) -> None:
    done = run(0.05, 0.04, 0.06)
    assert done.exit_code == 0
    lines = [line.split() for line in done.output.splitlines()]
    assert ["figure", "1", "2", "3", "2", "/", "1", "3", "/", "1"] in lines
    (row,) = [line for line in lines if line[0] == RESOLUTION]
    assert row[-2:] == ["0.800", "1.200"]
    assert row[1:4] == ["0.0500", "±", "0.0020"]
    names = [line[0] for line in lines]
    assert names.index("gap_closed.jets") < names.index(f"by_sample.qq.{RESOLUTION}")
    assert not any("baseline" in name for name in names)
    assert "baseline" in run(0.05, more=("--view", "baseline")).output


@pytest.mark.parametrize(
    ("resolutions", "limit", "broken"),
    [
        ((0.05, 0.052), "max_ratio: 1.05", ""),
        ((0.05, 0.053), "max_ratio: 1.05", "1.json: {}: max_ratio 1.05 (is 1.06)"),
        ((0.05, 0.04), "min_ratio: 0.9", "1.json: {}: min_ratio 0.9 (is 0.8)"),
        ((0.05, 0.04), "max: 0.045", ""),  # the first is what others are compared with
        ((0.05,), "max: 0.045", "0.json: {}: max 0.045 (is 0.05)"),
        ((0.05, 0.04), "min: 0.045", "1.json: {}: min 0.045 (is 0.04)"),
        ((0.05, None), "max: 0.045", "1.json: {}: has no value"),
        ((None, 0.04), "max_ratio: 1.05", "1.json: {}: max_ratio 1.05 (is nan)"),
    ],
)
def test_the_exit_status_tells_of_broken_limits(
    run: Any, resolutions: tuple[float | None, ...], limit: str, broken: str
) -> None:
    done = run(*resolutions, limits=f"{RESOLUTION}: {{{limit}}}")
    assert done.exit_code == (1 if broken else 0)
    assert broken.format(RESOLUTION) in done.output


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (f"{RESOLUTION}s: {{max: 1}}", rf"0.json: has no figure {RESOLUTION}s; did you mean"),
        (f"{RESOLUTION}: {{maximum: 1}}", r"limits.yaml: .*maximum: unknown key; allowed: max,"),
        (f"{RESOLUTION}: {{}}", r"limits.yaml: .*give min, max, min_ratio or max_ratio"),
        (f"{RESOLUTION}: 3", r"limits.yaml: .*"),
    ],
)
def test_mistakes_in_limits_are_one_line(run: Any, limits: str, message: str) -> None:
    done = run(0.05, limits=limits)
    assert isinstance(done.exception, UserError)
    with pytest.raises(UserError, match=message):
        raise done.exception
    assert "\n" not in str(done.exception)


def test_the_page_says_the_same_and_replaces_no_input(run: Any, tmp_path: Path) -> None:
    page = tmp_path / "compared.html"
    done = run(0.05, 0.06, limits=f"{RESOLUTION}: {{max_ratio: 1.1}}", more=("--html", str(page)))
    assert done.exit_code == 1
    text = page.read_text()
    assert f"1.json: {RESOLUTION}: max_ratio 1.1 (is 1.2)" in text
    assert f'<th scope="row">{RESOLUTION}</th>' in text
    done = run(0.05, more=("--html", str(tmp_path / "0.json")))
    assert "is an input, too" in str(done.exception)
