"""Ideal particle flow as a view, and the share of the gap to it that a model closes."""

from pathlib import Path

import awkward as ak
import numpy as np
import pytest

from particleforge.config.settings import ValidateSettings
from particleforge.tables import parquet
from particleforge.tables.schema import Fate
from particleforge.validation import validate
from particleforge.validation.gap import gap_closed, over_baseline
from particleforge.validation.histograms import fine_edges, to_json
from particleforge.validation.ideal import has_deposits, ideal_particles
from particleforge.validation.metrics import compute_metrics

from .validation_inputs import (
    many_events,
    rewrite,
    smeared,
    validate_settings,
    visible,
    without_deposits,
    write_pair,
)

MASS = 0.5
EDGES = fine_edges(1, 1e-3, 9)
# a track's momentum, 11, and a cluster's energy differ from the true momentum of 10
TRACKS = ak.Array([[{"p": 99.0}], [{"p": 98.0}, {"p": 11.0}]])


def _found(**of_one: float) -> list[dict[str, float]]:
    """Return ideal particle flow of one particle of momentum (0, 6, 8), in the second event."""
    particle = {
        **{"px": 0.0, "py": 6.0, "pz": 8.0, "energy": float(np.hypot(10, MASS))},
        **{"charge": 1, "class_id": 1, "fate": int(Fate.HOSTED), "element": 1},
        **{"deposited_energy": 7.0},
    } | of_one
    other = particle | {"fate": int(Fate.INVISIBLE), "element": -1}
    found = ideal_particles(ak.Array([[other], [other, particle]]), TRACKS)
    assert ak.num(found).tolist()[0] == 0
    return found[1].tolist()


def test_a_particle_on_a_track_has_its_momentum() -> None:
    (found,) = _found()
    assert found == pytest.approx(
        {"px": 0, "py": 6.6, "pz": 8.8, "energy": np.hypot(11, MASS), "charge": 1, "class_id": 1}
    )


@pytest.mark.parametrize(
    ("fate", "element"),
    [(Fate.HOSTED, 2), (Fate.MERGED, 2), (Fate.MERGED, 1), (Fate.DROPPED, -1)],
    ids=["on a cluster", "in a cluster", "in a particle with a track", "dropped"],
)
def test_any_other_particle_has_the_energy_that_it_left(fate: Fate, element: int) -> None:
    (found,) = _found(fate=int(fate), element=element)
    assert found == pytest.approx(
        {"px": 0, "py": 4.2, "pz": 5.6, "energy": 7, "charge": 1, "class_id": 1}
    )


def test_what_left_no_energy_is_not_there() -> None:
    assert _found(element=2, deposited_energy=0.0) == []
    assert _found(fate=int(Fate.INVISIBLE)) == []


def test_there_is_no_ideal_without_deposits(tmp_path: Path) -> None:
    settings = validate_settings()
    events = many_events(60, seed=2)
    pair = write_pair(tmp_path, events, visible(events))
    assert has_deposits([pair[0]])
    rewrite(pair[0], without_deposits(parquet.read_table(pair[0])))
    assert not has_deposits([pair[0]])
    hists = validate.fill_histograms(settings, [pair[0]], [pair[1]])
    for content in (compute_metrics(hists, settings), to_json(hists)):
        assert "ideal" not in str(content)
        assert "gap_closed" not in str(content)


def test_one_event_with_deposits_is_enough(tmp_path: Path) -> None:
    events = many_events(60, seed=2)
    mixed = ak.concatenate([without_deposits(events[:-1]), events[-1:]])
    assert has_deposits([write_pair(tmp_path, mixed, visible(mixed))[0]])


def _counts(width: float, n: int = 4000) -> np.ndarray:
    """Return the counts of a Gaussian response, and of resamplings of them."""
    rng = np.random.default_rng(3)
    values = rng.normal(1, 1, n)  # the same for every width, so paired
    draws = np.concatenate([np.ones((1, n)), rng.poisson(1, (50, n))])
    place = np.digitize(1 + width * (values - 1), EDGES) - 1
    return np.stack([np.bincount(place, one, len(EDGES) - 1) for one in draws]).astype(int)


def test_the_share_of_the_gap_is_paired() -> None:
    """Widths that scale exactly give the share without any statistical error; else there is one."""
    counts = {"ideal": _counts(0.02), "mlpf": _counts(0.05), "baseline": _counts(0.08)}
    found = gap_closed(counts, EDGES, 400)
    assert found is not None
    assert found["value"] == pytest.approx(0.5, abs=0.01)
    assert found["error"] < 0.01
    ratio = over_baseline(counts, EDGES, 400)
    assert ratio is not None
    assert ratio["value"] == pytest.approx(5 / 8, abs=0.01)
    assert ratio["error"] < 0.01
    worse = gap_closed({**counts, "mlpf": _counts(0.11)}, EDGES, 400)
    assert worse is not None
    assert worse["value"] == pytest.approx(-0.5, abs=0.02)


def test_there_is_no_share_of_no_gap() -> None:
    counts = {name: _counts(0.05) for name in ("ideal", "mlpf", "baseline")}
    assert gap_closed(counts, EDGES, 400) is None
    assert over_baseline(counts, EDGES, 400) == {"value": 1, "error": 0}
    few = {name: _counts(width, n=9) for name, width in (("ideal", 0.02), ("mlpf", 0.05))}
    few["baseline"] = _counts(0.08, n=9)
    assert gap_closed(few, EDGES, 9) is over_baseline(few, EDGES, 9) is None


def test_the_gap_in_metrics(tmp_path: Path) -> None:
    """A model that is ideal closes all of the gap, one that is the baseline nothing."""
    settings: ValidateSettings = validate_settings()
    events = many_events(150, seed=4)
    ideal = ideal_particles(events.particles, events.tracks)
    rows = smeared(events, 1, width=0.3, efficiency=0.8)
    columns = {name: ideal[name] for name in ideal.fields}
    for name in ("pdg", "element"):
        columns[name] = ak.zeros_like(ideal.class_id)
    perfect = ak.zip({**columns, "weight": ak.ones_like(ideal.energy)})
    for name, model, closed in (("ideal", perfect, 1), ("baseline", rows, 0)):
        folder = tmp_path / name
        folder.mkdir()
        pair = write_pair(folder, events, model, rows[[f for f in rows.fields if f != "weight"]])
        figures = compute_metrics(
            validate.fill_histograms(settings, [pair[0]], [pair[1]]), settings
        )
        for part in (figures, figures["by_sample"]["ttbar"]):
            for key in ("jets", "visible_energy"):
                assert part["gap_closed"][key] == pytest.approx(
                    {"value": closed, "error": 0}, abs=0.01
                )
        assert figures["by_sample"]["qq"]["gap_closed"] == {"jets": None, "visible_energy": None}
