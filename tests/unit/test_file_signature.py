"""What is no ROOT file, or only a part of one, is told by name, with what to do."""

import bz2
import gzip
import lzma
import pickle
import struct
import zipfile
from io import BytesIO

import awkward as ak
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import uproot

from particleforge.config.load import load_detector
from particleforge.dataset.build import build_dataset
from particleforge.delphes.rootfile import DelphesFile
from particleforge.edm4hep.reader import read_chunks
from particleforge.edm4hep.signature import refuse_other_files
from particleforge.errors import UserError
from particleforge.inputs.inspection import inspect_file

from .dataset_settings import CONFIG, dataset_settings
from .edm4hep_events import leaves_of, write_leaves
from .test_edm4hep_layouts import NAMES, sound_events

CLIC = load_detector(CONFIG, "clic")


def parquet() -> bytes:
    out = BytesIO()
    pq.write_table(pa.table({"pt": [1.0]}), out)
    return out.getvalue()


def archive() -> bytes:
    out = BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("events.root", b"root")
    return out.getvalue()


OTHERS = {
    "empty": (b"", "not a ROOT file but empty; fetch or simulate it again"),
    "Parquet": (parquet(), "not a ROOT file but Parquet; give the ROOT files that it was made of"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(99), "not a ROOT file but HDF5; give the ROOT files"),
    "gzip": (gzip.compress(b"root"), "not a ROOT file but compressed by gzip; unpack it"),
    "bzip2": (bz2.compress(b"root"), "not a ROOT file but compressed by bzip2; unpack it"),
    "xz": (lzma.compress(b"root"), "not a ROOT file but compressed by xz; unpack it"),
    "zip": (archive(), "not a ROOT file but a zip archive; unpack it"),
    "pickle": (pickle.dumps({"a": 1}), "not a ROOT file but a pickle; a pickle may run any code"),
    "pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "not a ROOT file but a pointer of Git LFS; fetch the file itself",
    ),
    "LCIO": (
        struct.pack(">iI", 40, 0xABADCAFE) + bytes(99),
        "not a ROOT file but LCIO; convert it to EDM4hep with lcio2edm4hep",
    ),
    "HepMC": (b"HepMC::Version 3.02\n", "not a ROOT file but HepMC text; simulate its events"),
    "page": (b"\n<html>404</html>", "not a ROOT file but a web page; fetch it again"),
    "text": ("energy in GeV, µ and e\n".encode(), "not a ROOT file but text; give the ROOT file"),
    "root text": (b"root is a word, and this is text\n", "not a ROOT file but text; give the"),
    "bytes": (bytes(range(256)), "not a ROOT file but something else; give the ROOT file"),
}


@pytest.mark.fault("file that is not EDM4hep")
@pytest.mark.parametrize(("content", "said"), OTHERS.values(), ids=OTHERS)
def test_another_format_is_told_by_name(tmp_path, content, said):
    path = tmp_path / "events.root"
    path.write_bytes(content)
    for read in (
        lambda: list(read_chunks(path, NAMES, 10)),
        lambda: DelphesFile(path),
        lambda: inspect_file(path, CLIC),
        lambda: build_dataset(dataset_settings(), [path], tmp_path / "out.parquet"),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{path}: {said}")
        assert "\n" not in str(caught.value)


@pytest.mark.fault("truncated ROOT file")
@pytest.mark.parametrize("keep", [4, 10, 300, -1])
def test_a_part_of_a_root_file_is_told_by_its_length(tmp_path, keep):
    write_leaves(tmp_path / "whole.root", leaves_of(sound_events()))
    whole = (tmp_path / "whole.root").read_bytes()
    refuse_other_files(tmp_path / "whole.root")
    (tmp_path / "part.root").write_bytes(whole[:keep])
    there = len(whole[:keep])
    of = f" of {len(whole)}" if there > 20 else ""
    with pytest.raises(UserError) as caught:
        list(read_chunks(tmp_path / "part.root", NAMES, 10))
    assert str(caught.value) == (
        f"{tmp_path}/part.root: a truncated ROOT file, {there}{of} bytes are there; fetch or"
        " simulate it again"
    )


def test_the_end_of_a_file_beyond_two_gigabytes_has_64_bits(tmp_path):
    header = b"root" + struct.pack(">iiq", 1_062_400, 100, 3_000_000_000)
    (tmp_path / "large.root").write_bytes(header + bytes(500))
    with pytest.raises(UserError, match="truncated ROOT file, 520 of 3000000000 bytes are there"):
        refuse_other_files(tmp_path / "large.root")


@pytest.mark.fault("file that is not EDM4hep")
@pytest.mark.parametrize("tree", ["events", "Delphes"])
def test_an_ntuple_of_an_old_root_is_told(tmp_path, tree):
    """ROOT wrote RNTuples from 6.30 on, and could read them from 6.34 on."""
    path = tmp_path / "events.root"
    with uproot.recreate(path) as file:
        file.mkrntuple("other", {"x": ak.Array(np.ones(2))})
        file._cascading.add_object(
            file._file.sink, "ROOT::Experimental::RNTuple", tree, "", bytes(48), 48
        )
    with pytest.raises(UserError) as caught:
        inspect_file(path, CLIC)
    assert str(caught.value).startswith(
        f"{path}: '{tree}' is an RNTuple of a ROOT before 6.34, a format that was not final; write"
        " the file anew"
    )
