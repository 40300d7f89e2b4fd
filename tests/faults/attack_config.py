"""Configuration in which one thing is changed: a value, a key, a byte, a ``--set``."""

import copy
import math
import random
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from particleforge.cli.options import overrides_of
from particleforge.config import settings as stage
from particleforge.config.load import load_detector, load_published, load_run
from particleforge.config.reader import parse_yaml

from .attacks import outcome, spoiled

CONFIG = Path(__file__).parents[2] / "config"
DETECTORS = ("clic", "cld", "cms_like", "cms_delphes")
PRESETS = ("smoke", "demo", "reference", "large")
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 7, 10**6, 10**30, -(10**12), 0.5, -0.5, 1e-30, 1e300),
    *(math.inf, -math.inf, math.nan, "", " ", "x", "x" * 5000, "yes", "1e6", "012", "0x10", "a,b"),
    *("../../etc/passwd", "/dev/null", "~", "a\x00b", "a\nb", "é{}{0}%s", "$HOME", "*", "clic"),
    *([], {}, [None], [[]], [{}], [1, "x"], {"x": 1}, {"x": {"y": []}}, [math.nan], ["x"] * 200),
]
STAGES = (
    stage.CompareSamplesSettings,
    stage.ShardSettings,
    stage.CheckShardsSettings,
    stage.TrainSettings,
    stage.HpoSettings,
    stage.ExportSettings,
    stage.ReconstructSettings,
    stage.ValidateSettings,
)


class Configuration:
    """Attempts on copies of the shipped files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "config"
        shutil.copytree(CONFIG, self.folder)
        self.files = {
            name: (self.folder / name).read_bytes()
            for name in sorted(
                str(path.relative_to(self.folder)) for path in self.folder.rglob("*.yaml")
            )
            if name.startswith(("config.yaml", "presets/", "detectors/", "spaces/", "published/"))
        }
        self.trees = {
            name: parse_yaml(content.decode(), name) or {} for name, content in self.files.items()
        }
        self.whole = load_run(CONFIG).model_dump(mode="json")

    def attempt(self, number: int) -> tuple[str, str]:
        rng = random.Random(f"configuration {number}")
        if rng.random() < 0.4:
            return self._set(rng)
        name = rng.choice(sorted(self.files))
        path = self.folder / name
        try:
            if rng.random() < 0.2:
                how = rng.choice(("truncated", "flipped", "overwritten", "moved"))
                path.write_bytes(spoiled(self.files[name], how, rng) or b"")
                return outcome(lambda: self._use(name, None, None))
            tree = copy.deepcopy(self.trees[name])
            place, given = edited(tree, rng)
            path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
            return outcome(lambda: self._use(name, place, given))
        finally:
            path.write_bytes(self.files[name])

    def _set(self, rng: random.Random) -> tuple[str, str]:
        """Give one key of the run another value, as a command does."""
        place = rng.choice(list(_leaves(self.whole)))
        given = rng.choice(VALUES)
        text = f"{'.'.join(map(str, place))}={yaml.safe_dump(given, default_flow_style=True)}"
        text = text.removesuffix("...\n").rstrip("\n")

        def use() -> str:
            overrides = overrides_of(None, [text])
            run = load_run(self.folder, overrides, "--set")
            return _differs(
                run.model_dump(mode="python"), place, parse_yaml(text.partition("=")[2], "")
            )

        return outcome(use)

    def _use(self, name: str, place: tuple[Any, ...] | None, given: Any) -> str:
        """Read everything of which the file is a part; return how it differs from what is there."""
        kind, stem = name.split("/")[0], Path(name).stem
        if kind == "published":
            return _differs(load_published(self.folder, stem).model_dump(), place, given)
        if kind == "detectors":
            detector = load_detector(self.folder, stem)
            run = load_run(self.folder, {"detector": [stem]}, "--config")
            _settings(run, detector)
            return _differs(detector.model_dump(), place, given)
        if kind == "spaces":
            space = load_run(self.folder, {"hpo": {"space_from": stem}}).hpo.space
            return _differs({n: s.model_dump() for n, s in space.items()}, place, given)
        run = load_run(self.folder, {"preset": stem} if kind == "presets" else {})
        _settings(run, load_detector(self.folder, "clic"))
        hidden = kind == "config.yaml"  # by the preset above it
        return "" if hidden else _differs(run.model_dump(), place, given)


def _settings(run: Any, detector: Any) -> None:
    """Make the settings of all stages, as the Snakefile does."""
    for sample in detector.samples:
        if run.simulation.backend != "files":
            stage.simulate_settings(run, detector, sample).plain()
        stage.dataset_settings(run, detector, sample).plain()
        stage.SelectSettings.of(run, detector, sample_name=sample).plain()
    for one in STAGES:
        one.of(run, detector).plain()


def _leaves(tree: Any, prefix: tuple[Any, ...] = ()) -> Any:
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, dict) and value:
            yield from _leaves(value, (*prefix, key))
        yield (*prefix, key)


def edited(tree: Any, rng: random.Random) -> tuple[tuple[Any, ...] | None, Any]:
    """Change one thing of a tree; return where a value was put and which, or None and None."""
    places = list(_places(tree))
    if not places:
        return None, None
    holder, key, path = rng.choice(places)
    what = rng.randrange(6)
    if what <= 2:
        holder[key] = copy.deepcopy(rng.choice(VALUES))
        return path, holder[key]
    if what == 3 and isinstance(holder, dict):
        wrong = f"{key}{rng.choice('sx_')}" if rng.random() < 0.5 else str(key)[1:]
        holder[wrong] = holder.pop(key)
        return (*path[:-1], wrong), holder[wrong]
    if what == 4:
        holder[key] = rng.choice(([holder[key]], {"value": holder[key]}, str(holder[key])))
        return path, holder[key]
    other_holder, other_key, _ = rng.choice(places)
    if not isinstance(other_holder[other_key], dict | list):
        holder[key] = other_holder[other_key]
        return path, holder[key]
    del holder[key]
    return None, None


def _places(tree: Any, path: tuple[Any, ...] = ()) -> Any:
    items = (
        tree.items()
        if isinstance(tree, dict)
        else enumerate(tree)
        if isinstance(tree, list)
        else ()
    )
    for key, value in items:
        yield tree, key, (*path, key)
        yield from _places(value, (*path, key))


def _differs(loaded: Any, place: tuple[Any, ...] | None, given: Any) -> str:
    """Return how what was read differs from what was given, "" if it does not."""
    if place is None or place[0] == "extends":
        return ""
    found = loaded
    for key in place:
        if (isinstance(found, dict) and key in found) or (
            isinstance(found, list | tuple) and isinstance(key, int) and key < len(found)
        ):
            found = found[key]
        else:
            return "" if given is None else f"{place}: {given!r} was given, and is not there"
    return "" if _same(given, found) else f"{place}: {given!r} was given, {found!r} is read"


def _same(given: Any, found: Any) -> bool:
    """Tell whether a value means what was given; None and an empty block mean the default."""
    if given is None:
        return True
    if isinstance(given, dict):
        return isinstance(found, dict) and all(
            key in found and _same(value, found[key]) for key, value in given.items()
        )
    if isinstance(given, list):
        return (
            isinstance(found, list | tuple)
            and len(found) in (len(given), len(set(map(str, given))))
            and all(map(_same, given, found))
        )
    if isinstance(found, list | tuple):  # names: one, or several by commas, each once
        parts = list(dict.fromkeys(part.strip() for part in str(given).split(",")))
        return list(found) in (parts, [given])  # a file's name may hold a comma
    if isinstance(given, str) != isinstance(found, str):  # text that is read as a number, or back
        return _plain(given) == _plain(found)
    if isinstance(given, bool):
        return given is found
    if isinstance(given, str) and given.startswith("~"):
        return found in (given, str(Path(given).expanduser()))
    return bool(_plain(given) == _plain(found)) or (given != given and found != found)


def _plain(value: Any) -> Any:
    """Return what a text says as YAML has it, blank as nothing; 012 is read as 12."""
    if not isinstance(value, str):
        return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
    with suppress(ValueError):
        return float(value)
    words = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
    return {**words, "": None, "~": None}.get(value.strip().casefold(), value)
