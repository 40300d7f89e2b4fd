"""A chain that starts from files: a local folder and a web server.

A file is added, one is broken, one leaves.
"""

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import yaml
from chain import Chain, planned_jobs
from tests.unit.http_server import Behaviour, serving

from particleforge.artefacts import sha256
from particleforge.tables.parquet import read_metadata, read_table

FILES = (
    "simulation={backend: files, published: mine, fetch: {wait_s: 0.0, attempts: 3, timeout_s: 5}}"
)


@pytest.fixture
def start(chain, tmp_path):
    """A new folder with the simulated files of the chain: one sample in a folder, another one on a
    server.
    """
    new = Chain.new(tmp_path / "new")
    shutil.copytree(chain.results / "sim/ttbar", new.folder / "data/ttbar")
    with serving() as server:
        for path in (chain.results / "sim/qq").glob("*.root"):
            server.files[f"/qq/{path.name}"] = path.read_bytes()
        write_card(new, server)
        yield new, server


def write_card(new, server, **of_qq):
    samples = {
        "ttbar": {"label": "top pairs", "files": "data/ttbar"},
        "qq": {
            "label": "quarks",
            "files": [f"{server.url}{path}" for path in sorted(server.files)],
            **of_qq,
        },
    }
    published = {
        "title": "Mine",
        "reference": "nowhere",
        "licence": "none",
        "detector": "clic",
        "expects": "EDM4hep",
        "samples": samples,
    }
    (new.folder / "config/published").mkdir(exist_ok=True)
    (new.folder / "config/published/mine.yaml").write_text(yaml.safe_dump(published))


def run(new, *targets, more=(), check=True):
    return new.run(*targets, config=(FILES, *more), check=check)


def shards(new, stage="dataset"):
    return {
        str(path.relative_to(new.results)): sha256(path)
        for path in sorted((new.results / stage).rglob("*.parquet"))
    }


def test_the_chain_starts_from_files_and_a_new_one_is_a_new_shard(chain, start):
    new, server = start
    server.behaviours += [Behaviour(503), Behaviour(cut_after=1 << 17)]
    first = planned_jobs(run(new, "select", "check_data"))
    assert (first["fetch_file"], first["build_dataset"], first["select_events"]) == (2, 4, 4)
    assert "simulate_events" not in first
    assert {status for *_, status in server.asked} >= {503, 200}
    assert run(new, "select", "check_data", "-n").count("Nothing to be done") == 1
    for sample in (
        "ttbar",
        "qq",
    ):  # what was simulated is what was read, whose identities now take in the particles
        for number in ("00000", "00001"):
            ours, theirs = (
                read_table(folder.results / f"dataset/{sample}/{number}.parquet")
                for folder in (new, chain)
            )
            assert ours["targets"].to_list() == theirs["targets"].to_list()
            assert set(ours["event_id"].to_list()).isdisjoint(theirs["event_id"].to_list())

    before = shards(new)
    rest = new.results / "select/ttbar"
    kept = {
        path: path.stat().st_mtime_ns
        for path in [*rest.glob("0000[01].parquet"), *(new.results / "files").rglob("*.root")]
    }
    assert len(kept) == 4
    # before the others by name
    shutil.copyfile(chain.results / "sim/ww/00000.root", new.folder / "data/ttbar/0000.root")
    second = planned_jobs(run(new, "select", "check_data"))
    assert (second["build_dataset"], second["select_events"], second["check_dataset"]) == (1, 1, 1)
    assert "fetch_file" not in second
    after = shards(new)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"dataset/ttbar/00002.parquet"}
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    (new.folder / "data/ttbar/00000.root").unlink()  # its shard goes, the others keep their numbers
    third = planned_jobs(run(new, "select"))
    assert set(third) == {"gather_cutflows", "select"}
    assert run(new, "select", "-n").count("Nothing to be done") == 1


def test_bad_files_are_refused_by_name_or_set_aside_and_counted(start):
    new, server = start
    server.files["/qq/00002.root"] = b"<html>Please log in</html>"
    write_card(new, server, checksums={"00001.root": f"md5:{'0' * 32}"})
    text = run(new, "dataset", check=False)
    assert f"{server.url}/qq/00002.root: the server sent a web page instead of a ROOT file" in text
    assert f"{server.url}/qq/00001.root: its md5 is" in text
    assert "Traceback" not in text
    assert (
        new.results / "dataset/ttbar/00001.parquet"
    ).is_file()  # other files' shards are made all the same
    assert (new.results / "dataset/qq/00000.parquet").is_file()

    shown = run(
        new,
        "check_data",
        "results/clic/select/cutflow.csv",
        more=("dataset={on_bad_file: quarantine}",),
    )
    assert "Traceback" not in shown
    quarantined = [
        read_metadata(new.results / f"dataset/qq/{number}.parquet")["quarantined"]
        for number in ("00000", "00001", "00002")
    ]
    assert [[entry["file"] for entry in entries] for entries in quarantined] == [
        [],
        ["00001.root"],
        ["00002.root"],
    ]


def test_no_file_is_fetched_again_for_another_way_to_try(start):
    new, server = start
    run(new, "fetch")
    assert len(server.asked) == 2
    config = (
        "simulation={backend: files, published: mine, fetch: {attempts: 9, timeout_s: 9}}",
        "dataset={on_bad_file: quarantine}",
    )
    assert "fetch_file" not in new.planned("dataset", config=config)


def test_a_zenodo_record_is_listed_once_and_fetched_files_may_go_once_they_are_read(start):
    new, server = start
    entries = [
        {
            "key": path.name,
            "size": len(content),
            "checksum": f"md5:{hashlib.md5(content).hexdigest()}",
            "links": {"self": server.url + str(path)},
        }
        for path, content in ((Path(name), content) for name, content in server.files.items())
    ]
    write_card(new, server, files=["zenodo://record/7/*.root"])
    server.files["/api/records/7"] = json.dumps({"files": entries}).encode()
    config = (FILES.replace("fetch: {", f"fetch: {{keep: false, zenodo_url: '{server.url}', "),)
    new.run("dataset", config=config)
    assert list((new.results / "files").rglob("*.root")) == []
    assert len(shards(new)) == 4
    assert new.run("dataset", "-n", config=config).count("Nothing to be done") == 1
    assert server.count("/api/records/7") == 1  # jobs and later runs find it in the ledger


def test_what_cannot_be_is_one_line_before_any_job(start):
    new, server = start
    assert new.planned("simulate", config=(FILES,)) == {"simulate": 1}  # which has nothing to do
    text = new.run("-n", config=("simulation={backend: files}",), check=False)
    assert (
        "clic: samples.qq.files: missing, but simulation.backend is files" in text
        or "clic: samples.ttbar.files: missing" in text
    )
    write_card(new, server, files=["nowhere/*.root"])
    text = run(new, "-n", check=False)
    assert "clic: samples.qq.files: nowhere/*.root: nowhere: No such file or directory" in text
    text = new.run("-n", config=(FILES.replace("mine", "mime"),), check=False)
    assert "published/mime.yaml: no such file; there are: " in text
    assert "did you mean 'mine'" in text
    text = new.run("-n", config=("simulation={published: mine}",), check=False)
    assert "simulation.published: mine describes files; set simulation.backend: files" in text
    text = new.run("-n", config=(FILES, "detector=cld"), check=False)
    assert "simulation.published: mine is of detector clic, not cld" in text
    assert "Traceback" not in text
