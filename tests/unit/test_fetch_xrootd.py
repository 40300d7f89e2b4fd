"""Fetching a file from a real XRootD server."""

import socket
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from .test_fetch import fetch, names, refused, sha256
from .xrootd_server import why_not, xrootd_serving

CONTENT = b"root" + np.random.default_rng(7).bytes(3_000_000)

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")


@pytest.fixture(scope="module")
def address():
    with tempfile.TemporaryDirectory() as name:  # not pytest's, which only its owner may read
        folder = Path(name)
        folder.chmod(0o755)
        with xrootd_serving(
            folder, {"a.root": CONTENT, "page.root": b"<html>Please log in</html>"}
        ) as running:
            yield running


def test_a_file_comes_whole_and_with_a_record(address, tmp_path):
    assert fetch(f"{address}//store/a.root", tmp_path, sha256(CONTENT)).read_bytes() == CONTENT
    assert names(tmp_path) == ["a.root", "a.root.provenance.json"]


def test_a_part_that_is_there_is_not_fetched_again(address, tmp_path):
    begin = b"root" + bytes(1_000_000)  # unlike the file's, so that it shows
    (tmp_path / ".a.root.part").write_bytes(begin)
    (tmp_path / ".a.root.part.json").write_text(f'{{"size": {len(CONTENT)}}}')
    assert fetch(f"{address}//store/a.root", tmp_path).read_bytes() == begin + CONTENT[len(begin) :]


def test_what_is_not_there_is_not_tried_again(address, tmp_path, caplog):
    said = refused(
        "no such file there; correct the address", f"{address}//store/b.root", tmp_path, wait_s=60.0
    )
    assert said == f"{address}//store/b.root: no such file there; correct the address"
    refused("sent a web page", f"{address}//store/page.root", tmp_path)
    assert "; try 2" not in caplog.text


def test_a_server_that_is_gone_is_one_line_in_time(tmp_path):
    said = refused(
        "the connection failed",
        "root://127.0.0.1:1//store/a.root",
        tmp_path,
        attempts=1,
        timeout_s=1.0,
    )
    assert "raise simulation.fetch.attempts" in said


@pytest.mark.fault("server that is slow or fails")
def test_a_server_that_says_nothing_is_one_line_in_time(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and is deaf
        address = f"root://127.0.0.1:{silent.getsockname()[1]}//store/a.root"
        began = time.monotonic()
        said = refused("the connection failed", address, tmp_path, attempts=1, timeout_s=0.5)
    assert time.monotonic() - began < 30
    assert "raise simulation.fetch.attempts" in said
