"""Datasets of files that were given: identities by content, checksums, limits."""

import hashlib

import numpy as np
import pyarrow.parquet as pq
import pytest

from particleforge.config.dataset import DatasetConfig
from particleforge.config.load import load_detector, load_run
from particleforge.config.settings import DatasetSettings, FilesSettings, dataset_settings
from particleforge.dataset.build import build_dataset
from particleforge.dataset.identity import content_of, event_ids
from particleforge.edm4hep.raw_events import Table
from particleforge.errors import UserError
from particleforge.tables.parquet import read_metadata

from .dataset_settings import CONFIG, NO_LIMITS
from .dataset_settings import dataset_settings as settings_of
from .edm4hep_events import leaves_of, random_event, write_leaves
from .real_files import real_file

TOLERANT = DatasetConfig(
    **NO_LIMITS,
    chunk_events=3,
)
OF_SIMULATED = [14244207041152014007, 1496843110336821430, 2884612736971349574]


def given(detector="clic", on_bad_file="fail", **files):
    return settings_of(
        detector,
        dataset=TOLERANT.model_copy(update={"on_bad_file": on_bad_file}),
        files=FilesSettings(**files),
    )


@pytest.fixture
def files(tmp_path):
    """Two files whose events are numbered alike."""
    rng = np.random.default_rng(7)
    for name in ("a", "b"):
        write_leaves(
            tmp_path / f"{name}.root", leaves_of([random_event(rng, 8, 2, 2, 2) for _ in range(5)])
        )
    return [tmp_path / "a.root", tmp_path / "b.root"]


def ids(settings, inputs, output):
    build_dataset(settings, inputs, output)
    return pq.read_table(output)["event_id"].to_pylist()


def sha256(path):
    return f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_identities_of_simulated_events_stay_what_they_were():
    assert (
        event_ids("ttbar", np.array([0, 1, 7]), np.array([0, 5, 123456])).tolist() == OF_SIMULATED
    )


def test_events_of_files_that_number_alike_have_identities_of_their_own(files, tmp_path):
    both = ids(given(), files, tmp_path / "both.parquet")
    assert len(set(both)) == 10
    assert both == [
        found for path in files for found in ids(given(), [path], tmp_path / "one.parquet")
    ]
    with pytest.raises(
        UserError,
        match=r"run and event numbers repeat between files; .* or set simulation.backend: files",
    ):
        ids(settings_of(dataset=TOLERANT), files, tmp_path / "out.parquet")


def merged(path, *parts):
    """Write one file that holds the events of several, numbers included."""
    columns = [
        leaves_of([random_event(np.random.default_rng(part), 8, 2, 2, 2) for _ in range(3)])
        for part in parts
    ]
    write_leaves(
        path,
        {
            leaf: ([row for part in columns for row in part[leaf][0]], dtype)
            for leaf, (_, dtype) in columns[0].items()
        },
    )
    return path


def test_events_keep_their_identity_when_files_are_merged(tmp_path):
    separate = ids(
        given(),
        [merged(tmp_path / f"{part}.root", part) for part in (1, 2)],
        tmp_path / "separate.parquet",
    )
    together = ids(
        given(), [merged(tmp_path / "together.root", 2, 1)], tmp_path / "together.parquet"
    )
    assert together == separate[3:] + separate[:3]
    assert len(set(separate)) == 6
    with pytest.raises(
        UserError, match=r"twice\.root: events occur twice, with the same numbers and particles"
    ):
        ids(given(), [merged(tmp_path / "twice.root", 1, 1)], tmp_path / "out.parquet")


def test_a_file_given_twice_is_refused(files, tmp_path):
    copy = tmp_path / "copy.root"
    copy.write_bytes(files[0].read_bytes())
    with pytest.raises(
        UserError, match=r"a\.root, copy\.root: events occur twice, .*; take the doubled file out"
    ):
        ids(given(), [files[0], copy], tmp_path / "out.parquet")


def particles(offsets, pdg, x, y, z, dtype):
    return Table(
        np.array(offsets),
        {
            "pdg": np.array(pdg),
            **{f"p{axis}": np.array(v, dtype) for axis, v in zip("xyz", (x, y, z), strict=True)},
        },
    )


def test_content_depends_on_every_member_but_neither_on_order_nor_on_precision():
    pdg = [211, -11, 22, 211]
    x = [1.1, 2.2, 3.3, 1.1]
    y = [0.1, -0.2, 0.3, 0.1]
    z = [5.0, 6.0, -7.0, 5.0]
    base = content_of(particles([0, 0, 3, 4], pdg, x, y, z, np.float64))
    assert len(set(base.tolist())) == 3
    np.testing.assert_array_equal(
        content_of(particles([0, 0, 3, 4], pdg, x, y, z, np.float32)), base
    )
    order = [2, 0, 1, 3]
    shuffled = ([values[i] for i in order] for values in (pdg, x, y, z))
    np.testing.assert_array_equal(content_of(particles([0, 0, 3, 4], *shuffled, np.float64)), base)
    for member in range(4):
        changed = [list(values) for values in (pdg, x, y, z)]
        changed[member][3] += 1
        other = content_of(particles([0, 0, 3, 4], *changed, np.float64))
        assert (other != base).tolist() == [False, False, True]
    swapped = content_of(particles([0, 0, 3, 4], pdg, y, x, z, np.float64))
    assert (swapped != base).tolist() == [False, True, True]
    repeated = content_of(
        particles([0, 2, 4], [22] * 4, [1.0] * 4, [2.0] * 4, [3.0] * 4, np.float64)
    )
    assert repeated[0] == repeated[1] != 0


@pytest.mark.fault("wrong checksum")
def test_a_file_with_another_checksum_fails_or_is_set_aside(files, tmp_path):
    right = tuple(map(sha256, files))
    assert len(ids(given(checksums=right), files, tmp_path / "right.parquet")) == 10
    wrong = (right[0], right[0])
    with pytest.raises(
        UserError, match=r"b\.root: its sha256 is .*; fetch it again, or correct the checksum"
    ):
        build_dataset(given(checksums=wrong), files, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()
    assert (
        len(ids(given(on_bad_file="quarantine", checksums=wrong), files, tmp_path / "out.parquet"))
        == 5
    )
    (entry,) = read_metadata(tmp_path / "out.parquet")["quarantined"]
    assert entry["file"] == "b.root"
    assert entry["reason"].startswith("b.root: its sha256 is")


@pytest.mark.parametrize("limit", [1, 3, 4, 100])
def test_only_the_first_events_of_each_file_are_read(files, tmp_path, limit):
    everything = [ids(given(), [path], tmp_path / "one.parquet") for path in files]
    limited = ids(given(events_per_file_max=limit), files, tmp_path / "out.parquet")
    assert limited == [found for one in everything for found in one[:limit]]


def test_only_the_first_events_of_a_delphes_file_are_read(tmp_path):
    path = real_file("delphes.root")
    everything = ids(given("cms_delphes"), [path], tmp_path / "all.parquet")
    assert (
        ids(given("cms_delphes", events_per_file_max=4), [path], tmp_path / "out.parquet")
        == everything[:4]
    )


def test_settings_know_of_files_only_where_files_are_given():
    detector = load_detector(CONFIG, "clic")
    simulated = dataset_settings(load_run(CONFIG), detector, "ttbar")
    assert simulated == DatasetSettings.of(load_run(CONFIG), detector, sample_name="ttbar")
    assert "files" not in simulated.plain()
    run = load_run(CONFIG, {"simulation": {"backend": "files"}})
    assert dataset_settings(run, detector, "any_name").plain()["files"] == {
        "events_per_file_max": None,
        "checksums": [],
    }
