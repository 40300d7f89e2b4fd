"""Files appear whole or not at all."""

import pytest

from particleforge.artefacts import atomic_directory, atomic_output, settings_hash, write_json
from particleforge.seeds import PYTHIA_SEED_MAX, generator_of, pythia_seed_of, seed_of


def test_failure_leaves_neither_the_file_nor_a_temporary_one(tmp_path):
    target = tmp_path / "sub" / "file.txt"
    with pytest.raises(RuntimeError), atomic_output(target) as temporary:
        temporary.write_text("half")
        assert not target.exists()
        raise RuntimeError
    assert list(target.parent.iterdir()) == []


def test_failure_keeps_the_former_content(tmp_path):
    target = tmp_path / "file.txt"
    target.write_text("former")
    with pytest.raises(RuntimeError), atomic_output(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "former"


def test_directory_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "plots"
    for name in ("old.png", "new.png"):
        with atomic_directory(target) as temporary:
            (temporary / name).write_text(name)
    assert [path.name for path in target.iterdir()] == ["new.png"]
    with pytest.raises(RuntimeError), atomic_directory(target) as temporary:
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["plots"]


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"value": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_settings_hash_ignores_order_of_keys():
    assert settings_hash({"a": 1, "b": 2}) == settings_hash({"b": 2, "a": 1})


def test_seeds_come_from_names():
    assert seed_of(1, "ttbar", "00000") == seed_of(1, "ttbar", "00000")
    assert len({seed_of(1, "ttbar", shard) for shard in range(1000)}) == 1000
    assert generator_of(1, "a").random() == generator_of(1, "a").random()
    assert all(1 <= pythia_seed_of(name) <= PYTHIA_SEED_MAX for name in range(100))
