"""Points of a search space as rows of numbers and back, for all kinds of spaces, conditions too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.space import ParameterConfig, active_parameters
from particleforge.hpo.space import encode, encoded_width, one_hot, unit_points_to_params

Space = dict[str, ParameterConfig]


@st.composite
def parameters(draw: st.DrawFn) -> ParameterConfig:
    kind = draw(
        st.sampled_from(
            ["float", "log float", "stepped float", "int", "log int", "stepped int", "categorical"]
        )
    )
    if kind == "categorical":
        values = st.one_of(
            st.integers(-3, 3),
            st.text("abc", min_size=1, max_size=2),
            st.floats(0.5, 2.0),
            st.booleans(),
        )
        return ParameterConfig(
            type="categorical",
            choices=tuple(draw(st.lists(values, min_size=1, max_size=4, unique=True))),
        )
    if kind == "stepped float":
        step = draw(st.sampled_from([0.1, 0.25, 1e-3, 3.0]))
        first = draw(st.integers(-20, 20))
        n = draw(st.integers(1, 30))
        return ParameterConfig(
            type="float", low=round(first * step, 6), high=round((first + n) * step, 6), step=step
        )
    if kind == "stepped int":
        low, step = draw(st.integers(-50, 50)), draw(st.integers(1, 7))
        return ParameterConfig(
            type="int", low=low, high=low + step * draw(st.integers(1, 20)), step=step
        )
    if "int" in kind:
        low = draw(st.integers(1 if "log" in kind else -50, 50))
        return ParameterConfig(
            type="int", low=low, high=low + draw(st.integers(1, 5000)), log="log" in kind
        )
    low = draw(st.floats(1e-6, 10))
    return ParameterConfig(
        type="float", low=low, high=low * draw(st.floats(1.5, 1e4)), log="log" in kind
    )


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    """Up to five parameters; each may depend on values of those before it."""
    space: Space = {}
    for name in draw(st.permutations("abcde"))[: draw(st.integers(0, 5))]:
        parents = (
            draw(st.lists(st.sampled_from(sorted(space)), max_size=2, unique=True)) if space else []
        )
        some = {
            p: draw(st.lists(st.sampled_from(space[p].values()), min_size=1, max_size=3))
            for p in parents
        }
        space[name] = draw(parameters()).model_copy(
            update={"when": {p: tuple(values) for p, values in some.items()}}
        )
    return space


def drawn(space: Space, seed: int, n: int = 16) -> np.ndarray:
    return np.random.default_rng(seed).random((n, encoded_width(space)))


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_points_survive_the_unit_cube(space: Space, seed: int) -> None:
    points = unit_points_to_params(space, drawn(space, seed))
    encoded = encode(space, points)
    assert encoded.shape == (len(points), encoded_width(space))
    assert ((encoded >= 0) & (encoded <= 1)).all()
    for before, after in zip(points, unit_points_to_params(space, encoded), strict=True):
        assert set(before) == set(after)
        for name, value in before.items():
            assert space[name].contains(value), (name, value)
            assert type(after[name]) is type(value)
            continuous = space[name].n_levels == 0
            assert after[name] == (pytest.approx(value, rel=1e-9) if continuous else value)


@settings(max_examples=60, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_exactly_the_parameters_whose_conditions_hold_are_active(space: Space, seed: int) -> None:
    complete = {
        name: parameter.model_copy(update={"when": {}}) for name, parameter in space.items()
    }
    everything = unit_points_to_params(complete, drawn(space, seed))
    for full, active in zip(everything, active_parameters(space, everything), strict=True):
        assert active.items() <= full.items()
        for name, parameter in space.items():
            holds = all(
                parent in active and active[parent] in values
                for parent, values in parameter.when.items()
            )
            assert (name in active) == holds


@settings(max_examples=40, deadline=None)
@given(spaces(), st.integers(0, 2**32))
def test_one_coordinate_per_parameter_suffices(space: Space, seed: int) -> None:
    uniforms = np.random.default_rng(seed).random((16, len(space)))
    rows = one_hot(space, uniforms)
    points = unit_points_to_params(space, rows)
    again = encode(space, points)
    start = 0
    for name in sorted(space):
        stop = start + len(space[name].choices or (0,))
        there = np.array([name in point for point in points])
        if space[name].choices or not space[name].n_levels:
            np.testing.assert_allclose(again[there, start:stop], rows[there, start:stop], atol=1e-7)
        start = stop


def test_every_value_of_a_discrete_parameter_has_the_same_share_of_the_cube() -> None:
    space = {
        "n": ParameterConfig(type="int", low=2, high=6),
        "s": ParameterConfig(type="float", low=0.1, high=0.5, step=0.1),
        "c": ParameterConfig(type="categorical", choices=("a", "b", "c", "d", "e")),
    }
    middles = (np.arange(5) + 0.5) / 5
    points = unit_points_to_params(space, one_hot(space, np.stack([middles] * 3, axis=1)))
    assert [tuple(point.values()) for point in points] == list(
        zip("abcde", [2, 3, 4, 5, 6], [0.1, 0.2, 0.3, 0.4, 0.5], strict=True)
    )
    # to the very edges of each value's share
    nearly = np.clip(middles[:, None] + 0.099 * np.array([-1, 1]), 0, 1).T
    for row in nearly:
        assert unit_points_to_params(space, one_hot(space, np.stack([row] * 3, axis=1))) == points


def test_logarithmic_scales_share_the_cube_by_ratio() -> None:
    space = {"x": ParameterConfig(type="float", low=1e-4, high=1.0, log=True)}
    assert encode(space, [{"x": 1e-4}, {"x": 1e-2}, {"x": 1.0}])[:, 0] == pytest.approx([0, 0.5, 1])
    assert unit_points_to_params(space, np.array([[0.0], [0.25], [1.0]])) == [
        {"x": pytest.approx(x)} for x in (1e-4, 1e-3, 1.0)
    ]


def test_inactive_and_foreign_values_lie_in_the_middle() -> None:
    space = {
        "kind": ParameterConfig(type="categorical", choices=("a", "b")),
        "only_b": ParameterConfig(type="int", low=1, high=3, when={"kind": ("b",)}),
        "also_b": ParameterConfig(type="categorical", choices=(1, 2), when={"kind": ("b",)}),
        "switched": ParameterConfig(type="float", low=0, high=1, when={"outside": (True,)}),
    }
    points = [{"kind": "a", "only_b": 3}, {"kind": "b", "only_b": 9, "also_b": 7}]
    off = encode(space, [{**point, "switched": 0.25} for point in points], {"outside": False})
    np.testing.assert_allclose(off, [[0.5, 0.5, 1, 0, 0.5, 0.5], [0.5, 0.5, 0, 1, 5 / 6, 0.5]])
    on = encode(space, points, {"outside": True, "switched": 0.25})
    assert on[:, -1] == pytest.approx([0.25, 0.25])
