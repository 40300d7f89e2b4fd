"""Which files a sample consists of, and that a file keeps its shard whatever comes or goes."""

import json
import os
import random
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from particleforge.config.detector import SampleConfig
from particleforge.config.load import load_run
from particleforge.errors import UserError
from particleforge.inputs.given import GivenFiles
from particleforge.inputs.sources import Ledger, local_files, natural, sample_files
from particleforge.paths import Paths

from .http_server import serving

CONFIG = Path(__file__).parents[2] / "config"
NOTHING = Ledger(1, {}, {})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (
        "d/f_2.root",
        "d/f_10.root",
        "d/f_1.root",
        "d/notes.txt",
        "e/sub/g.root",
        "e/g.root",
    ):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"root")
    return tmp_path


def sample(*files, **more):
    return SampleConfig(label="a sample", files=files, **more)


def found(*files, ledger=NOTHING, zenodo="http://127.0.0.1:9", **more):
    return sample_files(sample(*files, **more), "clic: samples.a", ledger, zenodo, 1.0)


def locations(files):
    return [source.location for number in sorted(files.shards) for source in files.shards[number]]


def refused(match, *files, **more):
    with pytest.raises(UserError, match=match) as raised:
        found(*files, **more)
    assert str(raised.value).startswith("clic: samples.a.")
    assert "\n" not in str(raised.value)


def test_order_is_that_of_the_entries_then_natural_and_a_file_counts_once(folder):
    everything = locations(
        found("e/g.root", "d", "d/f_*.root", "https://host/x.root", "d/f_1.root")
    )
    assert everything == [
        "e/g.root",
        "d/f_1.root",
        "d/f_2.root",
        "d/f_10.root",
        "https://host/x.root",
    ]
    assert locations(found("e/**/*.root")) == ["e/g.root", "e/sub/g.root"]
    assert locations(found(f"{folder}/d/f_[12].root")) == [
        f"{folder}/d/f_1.root",
        f"{folder}/d/f_2.root",
    ]


def test_one_entry_need_not_be_a_list():
    assert SampleConfig(label="a", files="d/*.root").files == ("d/*.root",)


def test_a_name_with_the_signs_of_a_glob_is_a_file(folder):
    Path("d/run[1].root").write_bytes(b"root")
    assert locations(found("d/run[1].root")) == ["d/run[1].root"]


@pytest.mark.fault("sample without files")
@pytest.mark.parametrize(
    ("files", "match"),
    [
        ((), "files: missing, but simulation.backend is files"),
        (
            ("d/absent.root",),
            "d/absent.root: no such file; give a ROOT file, a folder of them, a glob or a URL",
        ),
        (("d/z*.root",), r"d/z\*\.root: no file there"),
        (("absent/*.root",), r"absent/\*\.root: absent: No such file or directory"),
        (("bare",), "bare: no file there"),
        (("https://host",), "must be the address of one file"),
        (("https://host/d/*.root",), "must be the address of one file"),
        (
            ("ftp://host/d.root",),
            "ftp:// is not known; use http://, https://, root:// or zenodo://record",
        ),
        (("zenodo://7/a.root",), "must read zenodo://record/<id>/<name or glob>"),
        (("d/events.pkl.bz2",), "is a pickle, which may run any code and is not read"),
        (("https://host/events.pkl.bz2?download=1",), "is a pickle"),
        (("d/events.tar.gz",), "is an archive; unpack it"),
    ],
    ids=lambda value: str(value)[:24] if isinstance(value, tuple) else "",
)
def test_what_cannot_be_is_one_line(folder, files, match):
    Path("bare").mkdir()
    Path("d/events.pkl.bz2").write_bytes(b"")
    Path("d/events.tar.gz").write_bytes(b"")
    refused(match, *files)


@pytest.mark.fault("sample without files")
@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_and_folders_that_may_not_be_read_are_one_line(folder):
    Path("d/f_1.root").chmod(0)
    refused(r"d/f_1\.root: permission denied; make it readable", "d")
    Path("e").chmod(0)
    try:
        refused("permission denied in e; make the folder readable", "e")
    finally:
        Path("e").chmod(0o700)


@pytest.mark.fault("sample without files")
def test_what_the_system_does_not_let_read_is_one_line(folder, monkeypatch):
    """Tests may run as root, who may read everything, so the system's answers are given."""
    monkeypatch.setattr(os, "access", lambda path, _mode: not str(path).endswith("f_2.root"))
    refused(r"d/f_2\.root: permission denied; make it readable", "d")

    def forbidden(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", forbidden)
    refused("permission denied in e; make the folder readable", "e")


def test_checksums_belong_to_files_by_name_and_none_is_left_over(folder):
    checksum = f"md5:{'1' * 32}"
    files = found(
        "d",
        "https://host/p/x.root?download=1",
        checksums={"f_2.root": checksum, "x.root": checksum},
    )
    known = {source.name: source.checksum for shard in files.shards.values() for source in shard}
    assert known == {"f_1.root": "", "f_2.root": checksum, "f_10.root": "", "x.root": checksum}
    refused("checksums: f_3.root is no file of the sample", "d", checksums={"f_3.root": checksum})
    with pytest.raises(ValueError, match="must read sha256:<64 hex digits>"):
        sample("d", checksums={"f_2.root": "sha1:123"})


def test_urls_are_stored_by_host_and_path():
    stored = [
        found(url).shards[0][0].stored
        for url in (
            "root://me@host:80/a//b/../c.root",
            "https://host/c.root?x=1",
            "https://host/c.root?x=2",
            "https://host/a%20b.root",
        )
    ]
    assert stored[0] == "host%3A80/a/b/c.root"
    assert len(set(stored)) == 4
    assert stored[1].startswith("host/c.root-")
    assert stored[3] == "host/a%20b.root"


def zenodo_record(url, *names):
    entries = [
        {
            "key": name,
            "size": 4,
            "checksum": f"md5:{index:032x}",
            "links": {"self": f"{url}/files/{name}/content"},
        }
        for index, name in enumerate(names)
    ]
    return json.dumps({"files": entries}).encode()


def test_a_zenodo_record_is_asked_once_and_gives_checksums(folder):
    with serving() as server:
        server.files["/api/records/7"] = zenodo_record(
            server.url, "ww_10.root", "ww_2.root", "zz.root", "README.txt"
        )
        files = found("zenodo://record/7/ww*.root", "zenodo://record/7/zz.root", zenodo=server.url)
        assert server.count("/api/records/7") == 1
        assert locations(files) == [
            f"zenodo://record/7/{name}" for name in ("ww_2.root", "ww_10.root", "zz.root")
        ]
        (first,) = files.shards[0]
        assert (first.name, first.stored, first.checksum) == (
            "ww_2.root",
            "record/7/ww_2.root",
            f"md5:{1:032x}",
        )
        assert first.url == f"{server.url}/files/ww_2.root/content"
        files.ledger.write(folder / "ledger.json")
        again = found(
            "zenodo://record/7/*.root",
            ledger=Ledger.read(folder / "ledger.json", 1),
            zenodo="http://127.0.0.1:9",
        )
        assert locations(again) == locations(files)
        with pytest.raises(
            UserError,
            match=(
                r"the record has no such file; it has README\.txt, ww_2\.root, ww_10\.root \.\.\."
            ),
        ):
            found("zenodo://record/7/*.parquet", zenodo=server.url)


NAMES = st.lists(
    st.integers(0, 40).map(lambda number: f"https://host/f_{number}.root"),
    min_size=1,
    max_size=12,
    unique=True,
)


@given(runs=st.lists(NAMES, min_size=1, max_size=5), per_shard=st.integers(1, 4))
def test_files_keep_their_shard_whatever_is_added_or_taken_out(runs, per_shard):
    ledger, seen = Ledger(per_shard, {}, {}), {}
    for names in runs:
        files = sample_files(sample(*names), "a", ledger, "", 1.0)
        ledger = files.ledger
        placed = {
            source.location: number for number, shard in files.shards.items() for source in shard
        }
        assert set(placed) == set(names)
        assert all(seen.setdefault(name, number) == number for name, number in placed.items())
        assert all(len(shard) <= per_shard for shard in files.shards.values())


@given(names=NAMES, per_shard=st.integers(1, 4))
def test_first_numbers_follow_the_order(names, per_shard):
    files = sample_files(sample(*names), "a", Ledger(per_shard, {}, {}), "", 1.0)
    assert [len(shard) for _, shard in sorted(files.shards.items())][:-1] == [per_shard] * (
        len(files.shards) - 1
    )
    assert locations(files) == names


def test_an_added_file_is_a_new_shard_wherever_it_sorts_and_a_removed_one_changes_its_own_only(
    folder,
):
    first = found("d", ledger=Ledger(2, {}, {}))
    assert {
        number: [source.name for source in shard] for number, shard in first.shards.items()
    } == {0: ["f_1.root", "f_2.root"], 1: ["f_10.root"]}
    Path("d/f_0.root").write_bytes(b"root")
    second = found("d", ledger=first.ledger)
    assert {number: second.shards[number] for number in (0, 1)} == first.shards
    assert [source.name for source in second.shards[2]] == ["f_0.root"]
    Path("d/f_1.root").unlink()
    third = found("d", ledger=second.ledger)
    assert [source.name for source in third.shards[0]] == ["f_2.root"]
    assert {number: third.shards[number] for number in (1, 2)} == {
        number: second.shards[number] for number in (1, 2)
    }


def test_a_ledger_is_kept_as_it_was_and_refused_if_it_is_none(tmp_path):
    path = tmp_path / "a.json"
    ledger = Ledger(2, {"x.root": 3}, {})
    ledger.write(path)
    before = path.stat().st_mtime_ns, path.stat().st_ino
    ledger.write(path)
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == before
    assert Ledger.read(path, 2) == ledger
    assert Ledger.read(path, 3).shards == {}
    path.write_text("[]")
    with pytest.raises(
        UserError,
        match=(
            r"a\.json: not a readable list of a sample's shards .*; delete it to number them afresh"
        ),
    ):
        Ledger.read(path, 2)


@pytest.mark.parametrize(
    "other",
    [
        {"shards": {"x.root": 1.5}},
        {"shards": {"x.root": -1}},
        {"files_per_dataset_shard": "2"},
        {"records": {"7": [{"name": "a", "url": "file:///etc/passwd", "size": 1}]}},
    ],
    ids=str,
)
def test_a_ledger_of_other_types_is_one_line(tmp_path, other):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps({"files_per_dataset_shard": 2, "shards": {}, "records": {}, **other})
    )
    with pytest.raises(UserError, match=r"not a readable list of a sample's shards") as raised:
        Ledger.read(path, 2)
    assert "\n" not in str(raised.value)


def test_natural_order():
    names = [
        f"run{number}_v{version}.root" for number in (1, 2, 10, 100) for version in ("", "a", "b")
    ]
    assert sorted(random.Random(1).sample(names, len(names)), key=natural) == names


def given_files(folder, *files):
    run = load_run(
        CONFIG, {"simulation": {"backend": "files"}, "results_dir": str(folder / "results")}
    )
    return GivenFiles(
        run, {"clic": SimpleNamespace(samples={"a": sample(*files)})}, Paths(run.results_dir)
    )


def test_files_of_the_results_and_one_file_under_two_addresses_are_refused(folder):
    Path("results/clic/sim/a").mkdir(parents=True)
    Path("results/clic/sim/a/00000.root").write_bytes(b"root")
    with pytest.raises(
        UserError,
        match=r"00000\.root: lies in results_dir, where a run may make it anew; move it elsewhere",
    ):
        given_files(folder, "results/clic/sim/a")
    with pytest.raises(UserError, match="are one file; name it once"):
        given_files(folder, "https://host/a.root", "http://host/a.root")


def test_shards_beyond_those_of_the_files_are_refused(folder):
    files = given_files(folder, "d", "https://host/a.root")
    assert files.shards("clic", "a") == [0, 1, 2, 3]
    assert (
        files.files("clic", "a", 3)
        == [f"{folder}/results/clic/files/a/host/a.root"]
        == files.fetched("clic")
    )
    assert files.source("clic", "a", "host/a.root").url == "https://host/a.root"
    with pytest.raises(UserError, match=r"clic: samples\.a: has no shard 4; its files make 4"):
        files.files("clic", "a", 4)
    with pytest.raises(UserError, match=r"has no file other\.root to fetch"):
        files.source("clic", "a", "other.root")
    assert not Path("results").exists()
    files.keep_numbers()
    assert Ledger.read(Path("results/clic/files/a.json"), 1).shards["https://host/a.root"] == 3


def test_the_command_line_reads_files_of_this_machine_only(folder):
    assert local_files("d", "--input") == ["d/f_1.root", "d/f_2.root", "d/f_10.root"]
    with pytest.raises(
        UserError,
        match=(
            "only files of this machine can be read here; https:// files are fetched by the"
            " workflow"
        ),
    ):
        local_files("https://host/a.root", "--input")
