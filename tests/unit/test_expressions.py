"""Cuts: what is refused when the configuration is read, and values against a plain loop."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.cuts import (
    ClusterCutConfig,
    CutConfig,
    DetectorCutsConfig,
    HitCutConfig,
    ObjectCutsConfig,
    OverlapConfig,
)
from particleforge.config.expressions import parse_condition
from particleforge.config.load import validate
from particleforge.errors import UserError
from particleforge.selection.expressions import passes

from .synthetic import synthetic_events

EVIL = [
    "__import__('os').system('true')",
    "().__class__.__bases__[0].__subclasses__()",
    "open('x')",
    "tracks.__class__",
    "tracks.pt.__class__",
    "[x for x in tracks.pt]",
    "lambda: 1",
    "(y := 1)",
    "f'{weight}' == 'x'",
    "weight if weight else weight",
    "num(tracks.pt, axis=0) > 0",
    "num(*tracks.pt) > 0",
    "tracks.pt[0] > 1",
    "weight in (1, 2)",
    "weight is weight",
    "'a' < 'b'",
    "weight @ weight > 1",
    "1j == weight",
    "(" * 400 + "1" + ")" * 400 + " > 0",
    "weight > 0; weight",
    "",
]


@pytest.mark.parametrize("text", EVIL)
def test_anything_but_arithmetic_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"allowed|parsed|unknown|member|argument"):
        parse_condition(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("num(track.pt) > 0", "did you mean 'tracks'"),
        ("num(tracks.ptt) > 0", "did you mean 'pt'"),
        ("summ(tracks.pt) > 0", "did you mean 'sum'"),
        ("weigth > 0", "did you mean 'weight'"),
        ("num(tracks) > 0", "is a collection"),
        ("tracks.pt > 0", "any\\(\\) or all\\(\\)"),
        ("sum(tracks.pt)", "compare it"),
        ("sum(tracks.pt + clusters.energy) > 0", "cannot be combined"),
        ("sum(weight) > 0", "one value per event"),
        ("any(tracks.pt)", "needs a condition"),
        ("max(tracks.pt > 1) > 0", "needs numbers"),
        ("weight and weight > 1", "join conditions"),
        ("(weight > 1) + 1 > 0", "not conditions"),
        ("weight > 1" + "0" * 400, "too large"),
        ("weight > " + "1 + " * 400 + "1", "characters"),
    ],
)
def test_mistakes_are_explained(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_condition(text)


def test_a_wrong_cut_is_one_line_when_the_configuration_is_read() -> None:
    with pytest.raises(UserError) as raised:
        validate(
            DetectorCutsConfig,
            {"events": [{"name": "a", "expression": "num(tracks.ptt) > 1"}]},
            "x.yaml",
        )
    assert "x.yaml: events.0.expression: 'tracks' has no member 'ptt'" in str(raised.value)
    with pytest.raises(UserError, match="name each cut differently"):
        validate(
            DetectorCutsConfig,
            {"events": [{"name": "a", "expression": "weight > 1"}] * 2},
            "x.yaml",
        )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"objects": {"tracks": [{"name": "a", "expression": "clusters.energy > 1"}]}},
            "one value per object of 'tracks'",
        ),
        (
            {"objects": {"tracks": [{"name": "a", "expression": "num(tracks.pt) > 1"}]}},
            "belong into cuts.events",
        ),
        (
            {"objects": {"candidates": [{"name": "a", "expression": "candidates.pt > 1"}]}},
            "'candidates' has no member 'pt'",
        ),
        (
            {
                "overlaps": [
                    {
                        "name": "all",
                        "collection": "tracks",
                        "delta_r_max": 0.1,
                        "prefer": "tracks.pt",
                    }
                ]
            },
            "choose another name",
        ),
        (
            {
                "overlaps": [
                    {"name": "a", "collection": "tracks", "delta_r_max": 0, "prefer": "tracks.pt"}
                ]
            },
            "greater than 0",
        ),
        (
            {
                "overlaps": [
                    {"name": "a", "collection": "hits", "delta_r_max": 0.1, "prefer": "hits.energy"}
                ]
            },
            "'tracks' or 'clusters'",
        ),
        (
            {
                "overlaps": [
                    {
                        "name": "a",
                        "collection": "tracks",
                        "delta_r_max": 0.1,
                        "prefer": "clusters.et",
                    }
                ]
            },
            "per object of 'tracks'",
        ),
        (
            {
                "overlaps": [
                    {
                        "name": "a",
                        "collection": "tracks",
                        "delta_r_max": 0.1,
                        "prefer": "tracks.pt > 1",
                    }
                ]
            },
            "a number is needed",
        ),
        (
            {
                "overlaps": [
                    {
                        "name": "a",
                        "collection": "tracks",
                        "delta_r_max": 0.1,
                        "prefer": "tracks.pt",
                        "same": ["charg"],
                    }
                ]
            },
            "did you mean 'charge'",
        ),
        (
            {
                "objects": {"tracks": [{"name": "a", "expression": "tracks.pt > 1"}]},
                "overlaps": [
                    {"name": "a", "collection": "tracks", "delta_r_max": 0.1, "prefer": "tracks.pt"}
                ],
            },
            "name each cut differently",
        ),
    ],
)
def test_wrong_object_cuts_are_one_line_when_the_configuration_is_read(
    content: dict[str, object], message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(message)) as raised:
        validate(DetectorCutsConfig, content, "x.yaml")
    assert str(raised.value).startswith("x.yaml: ")
    assert "\n" not in str(raised.value)


OVERLAP_OF_CLUSTERS = OverlapConfig(
    name="a", collection="clusters", delta_r_max=0.1, prefer="clusters.energy"
)
OVERLAP_OF_TRACKS = OverlapConfig(
    name="a", collection="tracks", delta_r_max=0.1, prefer="tracks.pt / max(hits.energy)"
)


@pytest.mark.fault("calorimeter elements that do not fit")
@pytest.mark.parametrize(
    ("calorimeter_elements", "cuts", "message"),
    [
        (
            "clusters",
            {"events": (CutConfig(name="a", expression="any(hits.time > 1)"),)},
            "cuts.events: a: there are no hits",
        ),
        ("clusters", {"overlaps": (OVERLAP_OF_TRACKS,)}, "cuts.overlaps: a: there are no hits"),
        (
            "hits",
            {"events": (CutConfig(name="a", expression="max(clusters.width_transverse) > 1"),)},
            "have no 'width_transverse'",
        ),
        (
            "hits",
            {"overlaps": (OVERLAP_OF_CLUSTERS,)},
            "cuts.overlaps: a: dataset.calorimeter_elements: hits leaves no clusters",
        ),
    ],
)
def test_cuts_must_fit_the_calorimeter_elements(
    calorimeter_elements: str, cuts: dict[str, object], message: str
) -> None:
    other = {"clusters": "hits", "hits": "clusters"}[calorimeter_elements]
    chosen = DetectorCutsConfig(**cuts)
    chosen.check(other, "x.yaml")
    with pytest.raises(UserError, match=f"^x.yaml: .*{re.escape(message)}"):
        chosen.check(calorimeter_elements, "x.yaml")


def test_cuts_on_what_is_no_element_are_not_asked() -> None:
    cuts = DetectorCutsConfig(
        objects=ObjectCutsConfig(
            clusters=(ClusterCutConfig(name="a", expression="clusters.n_hits > 1"),),
            hits=(HitCutConfig(name="a", expression="hits.time < 9"),),
        )
    )
    for calorimeter_elements in ("clusters", "hits"):
        cuts.check(calorimeter_elements, "x.yaml")
        assert list(cuts.of_objects(calorimeter_elements)) == [
            "tracks",
            calorimeter_elements,
            "candidates",
        ]


def test_check_imports_nothing_heavy() -> None:
    code = (
        "import sys, particleforge.config.detector; print([m for m in ('numpy', 'awkward',"
        " 'pyarrow') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent,
    )
    assert run.stdout.strip() == "[]"


REFERENCE = {
    "num(tracks.pt) + num(clusters.energy) >= 12": lambda e: (
        len(e["tracks"]) + len(e["clusters"]) >= 12
    ),
    "sum(targets.energy) > 50 and weight < 1.2": lambda e: (
        sum(t["energy"] for t in e["targets"]) > 50 and e["weight"] < 1.2
    ),
    "max(tracks.pt) > 5": lambda e: any(t["pt"] > 5 for t in e["tracks"]),
    "min(clusters.energy) > 1": lambda e: all(c["energy"] > 1 for c in e["clusters"]),
    "any(abs(tracks.eta) > 1.9) or not all(clusters.energy > 0.5)": lambda e: (
        any(abs(t["eta"]) > 1.9 for t in e["tracks"])
        or not all(c["energy"] > 0.5 for c in e["clusters"])
    ),
    "1 < num(tracks.pt) <= 6": lambda e: 1 < len(e["tracks"]) <= 6,
    "sum(tracks.pt > 3 and tracks.charge == 1) >= 2": lambda e: (
        sum(t["pt"] > 3 and t["charge"] == 1 for t in e["tracks"]) >= 2
    ),
    "sqrt(sum(candidates.px)**2 + sum(candidates.py)**2) / (1 + num(candidates.px)) < 2": (
        lambda e: (
            math.hypot(sum(c["px"] for c in e["candidates"]), sum(c["py"] for c in e["candidates"]))
            / (1 + len(e["candidates"]))
            < 2
        )
    ),
    "num(tracks.pt) / num(clusters.energy) > 1": lambda e: (
        bool(e["clusters"]) and len(e["tracks"]) / len(e["clusters"]) > 1
    ),
    "sum(log(clusters.energy)) > -1e9 * weight": lambda e: True,
    "True": lambda e: True,
    "weight != weight": lambda e: False,
}


@pytest.mark.parametrize("text", REFERENCE)
def test_vectorised_cuts_equal_a_loop(text: str) -> None:
    events = synthetic_events(120, 3)
    expected = [REFERENCE[text](event) for event in events.to_list()]
    assert passes(text, events).tolist() == expected
    assert passes(text, events[:0]).shape == (0,)


@settings(max_examples=25, deadline=None)
@given(threshold=st.floats(0, 20), n=st.integers(0, 30))
def test_a_threshold_and_its_complement_split_the_events(threshold: float, n: int) -> None:
    events = synthetic_events(n, 5)
    above = passes(
        CutConfig(name="a", expression=f"sum(tracks.pt) > {threshold!r}").expression, events
    )
    below = passes(f"not sum(tracks.pt) > {threshold!r}", events)
    assert np.array_equal(above, ~below)
