"""docs/layouts.md: the tests that it names exist, its example of a map loads, and what it shows is
what ``inspect`` prints.
"""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from particleforge.config.load import load_detector
from particleforge.edm4hep.layout import Layout
from particleforge.edm4hep.mapping import BranchMap
from particleforge.inputs.inspection import inspect_file

from .dataset_settings import CONFIG
from .edm4hep_events import IDS, leaves_of, random_event, write_leaves
from .real_files import real_file
from .test_edm4hep_layouts import assert_same, read, renamed, write

ROOT = CONFIG.parent
PAGE = (ROOT / "docs" / "layouts.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_the_tests_that_the_page_names_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name
        for path in (ROOT / "tests" / "unit").glob("*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
    }
    assert len(named) > 30
    assert named <= defined


@pytest.fixture(scope="module")
def ild(tmp_path_factory):
    (content,) = (text for kind, text in BLOCKS if kind == "yaml")
    folder = tmp_path_factory.mktemp("config") / "config"
    shutil.copytree(CONFIG, folder)
    (folder / "detectors" / "ild.yaml").write_text(content)
    return load_detector(folder, "ild")


def test_the_example_of_a_map_loads_and_reads_names_of_old_and_new(ild):
    collections = ild.collections
    assert collections.candidates == "PandoraPFOs"  # from what it extends
    new = (
        "EcalBarrelCollectionRec",
        "ECALBarrel",
        "HcalBarrelCollectionRec",
        "MUON",
        "MarlinTrkTracks",
        "MCParticle",
    )
    chosen = BranchMap.of(Layout("events.root", [f"{name}.energy" for name in new]), collections)
    assert chosen.hits == {"EcalBarrelCollectionRec": 0, "HcalBarrelCollectionRec": 1, "MUON": 2}
    assert (chosen.tracks, chosen.particles) == (("MarlinTrkTracks",), "MCParticle")
    old = BranchMap.of(
        Layout(
            "events.root",
            [f"{name}.energy" for name in ("ECALBarrel", "HCALOther", "MCParticlesSkimmed")],
        ),
        collections,
    )
    assert old.hits == {"ECALBarrel": 0, "HCALOther": 1}
    assert old.particles == "MCParticlesSkimmed"


def test_the_example_of_a_map_reads_events_under_the_names_of_ild(tmp_path, ild):
    rng = np.random.default_rng(3)
    leaves = leaves_of([random_event(rng, 5, 3, 4, 6) for _ in range(4)])
    write_leaves(tmp_path / "reference.root", leaves, modern=True)
    names = {
        "MCParticles": "MCParticle",
        "SiTracks_Refitted": "MarlinTrkTracks",
        "SiTracksMCTruthLink": "MarlinTrkTracksMCTruthLink",
    }
    names |= {"ECALBarrel": "EcalBarrelCollectionRec", "HCALBarrel": "HcalBarrelCollectionRec"}
    for old, new in names.items():
        leaves = renamed(renamed(leaves, f"{old}.", f"{new}."), f"_{old}_", f"_{new}_")
    write(
        tmp_path / "events.root",
        leaves,
        ntuple=True,
        table="1.7",
        ids={names.get(name, name): number for name, number in IDS.items()},
    )
    assert_same(read(tmp_path / "events.root", ild.collections), read(tmp_path / "reference.root"))


def test_what_the_page_shows_is_what_inspect_prints():
    shown = [text for kind, text in BLOCKS if not kind]
    for text, name, detector in zip(
        shown,
        ("test_FCC_Winter2023.root", "edm4hep_example_v01-01_podio_v01-07.root"),
        ("fcc_delphes", "cld"),
        strict=True,
    ):
        path = real_file(name)
        printed = (
            inspect_file(path, load_detector(CONFIG, detector))
            .text()
            .replace(str(path), f"build/samples/{name}")
        )
        for part in text.rstrip().split("\n...\n"):
            assert part in printed


def test_readme_links_the_page():
    assert "docs/layouts.md" in Path(ROOT, "README.md").read_text()
