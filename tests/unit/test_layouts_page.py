"""docs/layouts.md: the tests that it names exist, its example of a map loads, and what it shows is what ``inspect`` prints."""

import re
import shutil
from pathlib import Path

import pytest

from particleforge.config.load import load_detector
from particleforge.edm4hep.layout import Layout
from particleforge.edm4hep.mapping import BranchMap
from particleforge.inspection import inspect_file

from .dataset_settings import CONFIG
from .real_files import real_file

ROOT = CONFIG.parent
PAGE = (ROOT / "docs" / "layouts.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


def test_the_tests_that_the_page_names_exist():
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    defined = {
        name for path in (ROOT / "tests" / "unit").glob("*.py") for name in re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)
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
    new = ("EcalBarrelCollectionRec", "ECALBarrel", "HcalBarrelCollectionRec", "MUON", "MarlinTrkTracks", "MCParticle")
    chosen = BranchMap.of(Layout("events.root", [f"{name}.energy" for name in new]), collections)
    assert chosen.hits == {"EcalBarrelCollectionRec": 0, "HcalBarrelCollectionRec": 1, "MUON": 2}
    assert (chosen.tracks, chosen.particles) == (("MarlinTrkTracks",), "MCParticle")
    old = BranchMap.of(Layout("events.root", [f"{name}.energy" for name in ("ECALBarrel", "HCALOther", "MCParticlesSkimmed")]), collections)
    assert old.hits == {"ECALBarrel": 0, "HCALOther": 1}
    assert old.particles == "MCParticlesSkimmed"


def test_what_the_page_shows_is_what_inspect_prints():
    shown = [text for kind, text in BLOCKS if not kind]
    for text, name, detector in zip(
        shown, ("test_FCC_Winter2023.root", "edm4hep_example_v01-01_podio_v01-07.root"), ("fcc_delphes", "cld"), strict=True
    ):
        path = real_file(name)
        printed = inspect_file(path, load_detector(CONFIG, detector)).text().replace(str(path), f"build/samples/{name}")
        for part in text.rstrip().split("\n...\n"):
            assert part in printed


def test_readme_links_the_page():
    assert "docs/layouts.md" in Path(ROOT, "README.md").read_text()
