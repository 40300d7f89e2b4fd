"""The reader of YAML: a key stands once, and no text costs more than it holds."""

import shutil
import sys
import time
from pathlib import Path

import pytest

from particleforge import cli
from particleforge.config.best import BestConfig
from particleforge.config.load import load_detector, load_run, validate
from particleforge.config.reader import DEPTH_MAX, check_given, check_size, parse_yaml, read_yaml
from particleforge.errors import UserError

from .simulation_fixtures import CONFIG

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
MERGED = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join([f'*{old}'] * 10)}]}}\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.fixture
def config_dir(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONFIG, tmp_path / "config"))


@pytest.mark.fault("unknown configuration key")
@pytest.mark.parametrize(
    ("file", "key"),
    [
        ("config.yaml", "seed"),
        ("presets/demo.yaml", "model"),
        ("spaces/small.yaml", "model.width"),
        ("detectors/clic.yaml", "title"),
        ("published/clic_zenodo_8260741.yaml", "licence"),
        ("best.yaml", "training"),
    ],
)
def test_a_key_given_twice_is_refused_in_every_file(config_dir: Path, file: str, key: str) -> None:
    path = config_dir / file
    text = path.read_text() if path.is_file() else "training: {}\n"
    old = next(
        number
        for number, line in enumerate(text.splitlines() + [f"{key}: {{}}"], 1)
        if line.startswith(f"{key}:")
    )
    kept = text if f"{key}:" in text else f"{text}{key}: {{}}\n"
    path.write_text(f"{kept}{key}: {{}}\n")
    new = len(path.read_text().splitlines())
    with pytest.raises(
        UserError, match=rf"{file}: {key}: is given twice, in lines {old} and {new}; keep one"
    ):
        if file == "best.yaml":
            validate(BestConfig, read_yaml(path), str(path))
        load_run(config_dir)
        load_detector(config_dir, "clic", "clic_zenodo_8260741")


def test_a_key_given_twice_deeper_down_is_named_in_full() -> None:
    text = "training:\n  loss: {event: 1,\n    event: 2}\n"
    with pytest.raises(
        UserError, match=r"^f: training\.loss\.event: is given twice, in lines 2 and 3"
    ):
        parse_yaml(text, "f")
    with pytest.raises(UserError, match=r"^f: samples\.0\.a: is given twice, in line 1"):
        parse_yaml("samples: [{a: 1, a: 1}]", "f")
    assert parse_yaml("a: {x: 1}\nb: {x: 1}\nc: [{x: 1}, {x: 1}]", "f")["c"] == [{"x": 1}] * 2


@pytest.mark.parametrize(
    ("command", "source"),
    [
        (["--set", "training={max_steps: 3, max_steps: 4}"], "--set training="),
        (["--set", "model=" + "[" * 60], "--set model="),
    ],
)
def test_set_is_read_alike(
    monkeypatch: pytest.MonkeyPatch, config_dir: Path, command: list[str], source: str
) -> None:
    asked = ["show-config", "--detector", "clic", "--config-dir", str(config_dir), *command]
    monkeypatch.setattr(sys, "argv", ["particleforge", *asked])
    with pytest.raises(SystemExit, match=f"error: {source}") as ended:
        cli.main()
    assert "\n" not in str(ended.value.code)


def test_what_snakemake_was_given_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "site.yaml"
    file.write_text("seed: 1\nseed: 2\n")
    check_given(["preset=demo", "results_dir=a: b: c", "training={max_steps: 3}"], [])
    with pytest.raises(UserError, match=r"--config training: max_steps: is given twice, in line 1"):
        check_given(["training={max_steps: 3, max_steps: 4}"], [])
    with pytest.raises(UserError, match=r"site\.yaml: seed: is given twice, in lines 1 and 2"):
        check_given(None, [file])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[" * 100_000, f"line 1: nested deeper than {DEPTH_MAX} levels"),
        ("\n".join(" " * n + "a:" for n in range(500)), "nested deeper"),
        (BOMB, "holds more than"),
        (MERGED, "holds more than"),
        ("a: &a [*a]", "aliases"),
        ("a: " + "9" * 5000, "not readable as YAML: "),
        ("12: 1", "line 1: the key '12' is read as no text; put it into quotes"),
        ("{[1, 2]: 3}", "the key a list or mapping"),
        ("a: !!python/object:os.system {}", "not readable as YAML: "),
        ("a: b\x00", "not readable as YAML: "),
    ],
    ids=lambda value: value[:12],
)
def test_what_no_configuration_holds_is_one_line_at_once(text: str, words: str) -> None:
    start = time.process_time()
    with pytest.raises(UserError) as refused:
        parse_yaml(text, "f.yaml")
    assert time.process_time() - start < 2
    assert str(refused.value).startswith("f.yaml: ")
    assert words in str(refused.value)
    assert len(str(refused.value)) < 1000


def test_aliases_and_merges_of_usual_size_are_read() -> None:
    text = "a: &a {x: 1, y: 2}\nb: {<<: *a, y: 3}\nc: *a\n"
    assert parse_yaml(text, "f") == {
        "a": {"x": 1, "y": 2},
        "b": {"x": 1, "y": 3},
        "c": {"x": 1, "y": 2},
    }
    assert parse_yaml("", "f") is None


def test_values_that_snakemake_parsed_have_the_same_bounds() -> None:
    tree: list[object] = ["x"] * 10
    for _ in range(9):
        tree = [tree] * 10
    with pytest.raises(UserError, match="--config: holds more than"):
        check_size({"training": tree}, "--config")
    with pytest.raises(UserError, match="--config: holds more than"):
        load_run(CONFIG, {"detector": tree})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e6", 1e6),
        ("1e-3", 1e-3),
        ("-0.5E+2", -50.0),
        ("012", "012"),
        ("1:30", "1:30"),
        ("2026-04-01", "2026-04-01"),
        ("[no, yes, on, true]", ["no", "yes", "on", True]),
        ("[~, null, '']", [None, None, ""]),
        ("{a: , b: .inf}", {"a": None, "b": float("inf")}),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    found = parse_yaml(text, "here")
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize("text", ["!!bool maybe", '!!int ""', "!!timestamp x", "!!float x"])
def test_a_value_that_does_not_fit_its_tag_is_one_line(text: str) -> None:
    with pytest.raises(UserError, match="here: not readable as YAML: "):
        parse_yaml(text, "here")
