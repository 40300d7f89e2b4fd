"""The shipped published data sets, with a server in Zenodo's place, and what their files may
say.
"""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from particleforge.config.load import load_detector, load_published, load_run
from particleforge.errors import UserError
from particleforge.orchestration.workflow import Workflow

from .http_server import serving

CONFIG = Path(__file__).parents[2] / "config"
PUBLISHED = sorted(path.stem for path in (CONFIG / "published").glob("*.yaml"))


def planned(published, results, zenodo):
    simulation = {"backend": "files", "published": published, "fetch": {"zenodo_url": zenodo}}
    return Workflow(
        [CONFIG],
        {
            "simulation": simulation,
            "detector": load_published(CONFIG, published).detector,
            "results_dir": str(results),
        },
    )


def serve_record(server, number, *names):
    entries = [
        {
            "key": name,
            "size": 4,
            "checksum": f"md5:{'a' * 32}",
            "links": {"self": f"{server.url}/{name}"},
        }
        for name in names
    ]
    server.files[f"/api/records/{number}"] = json.dumps({"files": entries}).encode()


@pytest.mark.parametrize("name", PUBLISHED)
def test_shipped_data_sets_are_read_and_their_detectors_exist(name):
    published = load_published(CONFIG, name)
    detector = load_detector(CONFIG, published.detector, name)
    assert detector.samples == published.samples
    assert all(sample.files for sample in published.samples.values())
    assert load_detector(CONFIG, "cld", name).samples == load_detector(CONFIG, "cld").samples


def test_the_clic_record_gives_one_shard_a_file_with_its_checksum(tmp_path):
    with serving() as server:
        serve_record(
            server,
            8260741,
            "reco_p8_ee_tt_ecm380_2.root",
            "reco_p8_ee_tt_ecm380_10.root",
            "reco_p8_ee_qq_ecm380_1.root",
            "x.root",
        )
        run = planned("clic_zenodo_8260741", tmp_path, server.url)
        assert [path.rsplit("/", 1)[-1] for path in run.given.fetched_files()] == [
            "reco_p8_ee_tt_ecm380_2.root",
            "reco_p8_ee_tt_ecm380_10.root",
            "reco_p8_ee_qq_ecm380_1.root",
        ]
        assert len(run.files.every_shard(run.paths.dataset)) == 3
        assert server.count("/api/records/8260741") == 1
        run.given.keep_numbers()
    planned("clic_zenodo_8260741", tmp_path, "http://127.0.0.1:9")  # now nothing is asked


@pytest.mark.parametrize(
    ("published", "number", "names", "match"),
    [
        (
            "clic_zenodo_8260741",
            8260741,
            ("p8_ee_tt_ecm380.tar.gz",),
            "p8_ee_tt_ecm380.tar.gz: is an archive; unpack it",
        ),
        (
            "clic_zenodo_8260741",
            8260741,
            ("README.md",),
            "the record has no such file; it has README.md",
        ),
        (
            "cms_delphes_zenodo_4559324",
            4559324,
            ("tev14_pythia8_ttbar_0_0.pkl.bz2",),
            "is a pickle, which may run any code and is not read",
        ),
    ],
)
def test_what_a_record_has_in_another_form_is_one_line(tmp_path, published, number, names, match):
    with serving() as server:
        serve_record(server, number, *names)
        with pytest.raises(UserError, match=match.replace(".", r"\.")):
            planned(published, tmp_path, server.url)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"samples": {}}, "samples: "),
        ({"detctor": "clic"}, "detctor: unknown key; .* did you mean 'detector'"),
        (
            {"samples": {"a": {"label": "a", "file": "x.root"}}},
            "samples.a.file: unknown key; .* did you mean 'files'",
        ),
    ],
)
def test_mistakes_in_a_card_name_file_and_key(tmp_path, change, match):
    shutil.copytree(CONFIG, tmp_path / "config")
    path = tmp_path / "config/published" / f"{PUBLISHED[0]}.yaml"
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | change))
    with pytest.raises(UserError, match=rf"published/{PUBLISHED[0]}\.yaml: {match}"):
        load_run(
            tmp_path / "config",
            {"simulation": {"backend": "files", "published": PUBLISHED[0]}, "detector": "clic"},
        )


def test_a_sample_without_a_process_is_not_simulated(tmp_path):
    shutil.copytree(CONFIG, tmp_path / "config")
    path = tmp_path / "config/detectors/clic.yaml"
    content = yaml.safe_load(path.read_text())
    del content["samples"]["qq"]["pythia"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(
        UserError,
        match=(
            r"clic: samples\.qq\.pythia: missing; name the process, or set simulation\.backend:"
            r" files"
        ),
    ):
        Workflow([tmp_path / "config"], {"detector": "clic"})
