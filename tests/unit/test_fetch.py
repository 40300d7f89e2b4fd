"""Fetching a file from a server that is slow, breaks off, fails, lies, or is gone."""

import hashlib
import json

import numpy as np
import pytest

from particleforge.config.settings import FetchSettings
from particleforge.errors import UserError
from particleforge.inputs.fetch import fetch_file
from particleforge.inputs.zenodo import record_files
from particleforge.provenance.lineage import read_lineage

from .http_server import Behaviour, serving

CONTENT = b"root" + np.random.default_rng(5).bytes(3_000_000)
OTHER = b"root" + np.random.default_rng(6).bytes(2_000_000)
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture
def server():
    with serving(files={"/a.root": CONTENT, "/page.root": PAGE, "/empty.root": b""}) as running:
        yield running


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def fetch(url, folder, checksum="", *, attempts=4, timeout_s=5.0, on_bad_file="fail", wait_s=0.0):
    output = folder / "a.root"
    settings = FetchSettings(url=url, checksum=checksum)
    fetch_file(
        settings,
        output,
        attempts=attempts,
        wait_s=wait_s,
        timeout_s=timeout_s,
        on_bad_file=on_bad_file,
    )
    return output


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def refused(match, *arguments, **options):
    with pytest.raises(UserError, match=match) as raised:
        fetch(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_file_comes_whole_and_with_a_record(server, tmp_path, algorithm):
    checksum = f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}"
    output = fetch(f"{server.url}/a.root", tmp_path, checksum)
    assert output.read_bytes() == CONTENT
    assert names(tmp_path) == ["a.root", "a.root.provenance.json"]
    record = read_lineage(output).items[output].record
    assert (record["stage"], record["settings"]["url"]) == ("fetch_file", f"{server.url}/a.root")
    assert server.asked == [("/a.root", "", 200)]


@pytest.mark.fault("download broken off")
def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, tmp_path, caplog):
    server.behaviours += [Behaviour(cut_after=1 << 20), Behaviour(cut_after=1 << 19)]
    output = fetch(f"{server.url}/a.root", tmp_path, sha256(CONTENT))
    assert output.read_bytes() == CONTENT
    assert server.asked == [
        ("/a.root", "", 200),
        ("/a.root", "bytes=1048576-", 206),
        ("/a.root", "bytes=1572864-", 206),
    ]
    assert "try 2 of 4" in caplog.text


@pytest.mark.fault("download broken off")
def test_a_job_that_is_run_again_goes_on_where_the_last_one_stopped(server, tmp_path):
    server.behaviours += [Behaviour(cut_after=1 << 20)]
    message = refused(
        r"\(1 tries\); run again to go on from 1\.0 MB",
        f"{server.url}/a.root",
        tmp_path,
        attempts=1,
    )
    assert message.startswith(f"{server.url}/a.root")
    assert not (tmp_path / "a.root").exists()
    assert fetch(f"{server.url}/a.root", tmp_path, attempts=1).read_bytes() == CONTENT
    assert server.asked[-1] == ("/a.root", "bytes=1048576-", 206)


def test_a_server_without_ranges_sends_all_again(server, tmp_path):
    server.ranges = False
    server.behaviours += [Behaviour(cut_after=1 << 20)]
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT
    assert [status for *_, status in server.asked] == [200, 200]


def test_a_server_without_etags_is_never_asked_for_a_rest(server, tmp_path):
    """Nothing would tell whether the rest belongs to the part."""
    server.etags = False
    server.behaviours += [Behaviour(cut_after=1 << 20)]
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT
    assert [wanted for _, wanted, _ in server.asked] == ["", ""]


@pytest.mark.fault("download broken off")
def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(server, tmp_path):
    server.behaviours += [Behaviour(cut_after=1 << 20)]
    refused("run again", f"{server.url}/a.root", tmp_path, attempts=1)
    server.files["/a.root"] = OTHER
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == OTHER
    assert server.asked[-1] == ("/a.root", "bytes=1048576-", 200)


def test_a_part_longer_than_the_file_is_dropped(server, tmp_path):
    server.behaviours += [Behaviour(cut_after=1 << 20)]
    refused("run again", f"{server.url}/a.root", tmp_path, attempts=1)
    part = tmp_path / ".a.root.part"
    part.write_bytes(CONTENT + b"more")
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT
    assert [status for *_, status in server.asked] == [200, 416, 200]


@pytest.mark.fault("server that is slow or fails")
def test_a_silent_server_ends_a_try_after_the_timeout(server, tmp_path, caplog):
    server.behaviours += [Behaviour(cut_after=1 << 20, silent_s=1.5)]
    assert fetch(f"{server.url}/a.root", tmp_path, timeout_s=0.3).read_bytes() == CONTENT
    assert "the connection failed" in caplog.text
    assert server.asked[-1][1].startswith("bytes=")


@pytest.mark.fault("server that is slow or fails")
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_failing_server_is_asked_again(server, tmp_path, status):
    server.behaviours += [Behaviour(status), Behaviour(status)]
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT
    assert [found for *_, found in server.asked] == [status, status, 200]
    server.behaviours += [Behaviour(status)] * 2
    (tmp_path / "a.root").unlink()
    refused(
        rf"the server answers {status} .* \(2 tries\)", f"{server.url}/a.root", tmp_path, attempts=2
    )


@pytest.mark.fault("server that is slow or fails")
def test_no_server_at_all(tmp_path):
    with serving() as gone:
        url = gone.url
    refused(r"the connection failed \(.*\) \(2 tries\)", f"{url}/a.root", tmp_path, attempts=2)


@pytest.mark.fault("file that is not on the server")
@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_what_is_not_there_is_not_asked_for_again(server, tmp_path, status):
    server.behaviours += [Behaviour(status)]
    refused(
        rf"the server answers {status} .*; correct the address, or ask for access",
        f"{server.url}/a.root",
        tmp_path,
    )
    assert len(server.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.fault("web page in place of a file")
@pytest.mark.parametrize(("path", "kind"), [("page", "a web page"), ("empty", "nothing")])
def test_a_web_page_is_refused_or_left_to_be_set_aside(server, tmp_path, path, kind, caplog):
    refused(f"the server sent {kind} instead of a ROOT file", f"{server.url}/{path}.root", tmp_path)
    assert names(tmp_path) == []
    fetch(f"{server.url}/{path}.root", tmp_path, on_bad_file="quarantine")
    assert f"sent {kind}" in caplog.text
    assert (tmp_path / "a.root").exists()


@pytest.mark.fault("wrong checksum")
def test_a_wrong_checksum_is_refused_or_left_to_be_set_aside(server, tmp_path, caplog):
    wrong = sha256(OTHER)
    message = refused(
        "its sha256 is .*, expected .*; fetch it again, or correct the checksum",
        f"{server.url}/a.root",
        tmp_path,
        wrong,
    )
    assert wrong.removeprefix("sha256:") in message
    assert names(tmp_path) == []
    assert (
        fetch(f"{server.url}/a.root", tmp_path, wrong, on_bad_file="quarantine").read_bytes()
        == CONTENT
    )
    assert "its sha256 is" in caplog.text


def test_other_protocols_go_through_fsspec(tmp_path):
    source = tmp_path / "there.root"
    source.write_bytes(CONTENT)
    (tmp_path / "here").mkdir()
    assert fetch(f"file://{source}", tmp_path / "here", sha256(CONTENT)).read_bytes() == CONTENT
    refused("no such file there", f"file://{tmp_path}/absent.root", tmp_path / "here")


def test_a_protocol_without_its_package_is_one_line(tmp_path):
    pytest.importorskip("fsspec")
    try:
        import fsspec_xrootd  # noqa: F401
    except ImportError:
        refused("for root:// install fsspec-xrootd", "root://host.example//store/a.root", tmp_path)


def record(url, *files):
    entries = [
        {"key": name, "size": 4, "checksum": f"md5:{'0' * 32}", "links": {"self": f"{url}{path}"}}
        for name, path in files
    ]
    return json.dumps({"id": 7, "files": entries}).encode()


def test_the_files_of_a_zenodo_record(server):
    server.files["/api/records/7"] = record(
        server.url, ("a b.root", "/api/records/7/files/a b.root/content")
    )
    (found,) = record_files(server.url, "7", 5.0)
    assert (found.name, found.checksum) == ("a b.root", f"md5:{'0' * 32}")
    assert found.url == f"{server.url}/api/records/7/files/a b.root/content"


@pytest.mark.fault("Zenodo record that cannot be listed")
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "404 Not Found; correct the record's number"),
        (b"<html>", "not a record's description"),
        (b"{}", "not a record's description"),
    ],
    ids=["absent", "page", "empty"],
)
def test_a_zenodo_record_that_cannot_be_listed_is_one_line(server, content, match):
    if content is not None:
        server.files["/api/records/7"] = content
    with pytest.raises(UserError, match=match) as raised:
        record_files(server.url, "7", 5.0)
    assert "\n" not in str(raised.value)
    with serving() as gone:
        url = gone.url
    with pytest.raises(
        UserError,
        match=(
            "ConnectionError; the files of a record can only be listed with a connection to Zenodo"
        ),
    ):
        record_files(url, "7", 1.0)
