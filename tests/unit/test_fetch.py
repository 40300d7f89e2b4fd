"""Fetching a file from a server that is slow, breaks off, fails, lies, or is gone."""

import hashlib
import ssl
import threading
from contextlib import nullcontext
from importlib.util import find_spec
from typing import ClassVar

import fsspec
import numpy as np
import pytest
import requests
from fsspec.registry import _registry

from particleforge.config.settings import FetchSettings
from particleforge.errors import UserError
from particleforge.inputs import web
from particleforge.inputs.fetch import fetch_file
from particleforge.provenance.lineage import read_lineage

from .http_server import Behaviour, dripping, endless, serving

CONTENT = b"root" + np.random.default_rng(5).bytes(3_000_000)
OTHER = b"root" + np.random.default_rng(6).bytes(2_000_000)
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"


@pytest.fixture
def server():
    with serving(files={"/a.root": CONTENT, "/page.root": PAGE, "/empty.root": b""}) as running:
        yield running


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def fetch(
    url,
    folder,
    checksum="",
    *,
    size=None,
    attempts=4,
    timeout_s=5.0,
    on_bad_file="fail",
    wait_s=0.0,
    gb_max=1.0,
):
    output = folder / "a.root"
    settings = FetchSettings(url=url, checksum=checksum, size=size)
    fetch_file(
        settings,
        output,
        attempts=attempts,
        wait_s=wait_s,
        timeout_s=timeout_s,
        gb_max=gb_max,
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


LENGTH = len(CONTENT)
PART = 1 << 20
REST = f"bytes {PART}-{LENGTH - 1}/{LENGTH}"
LIES = {
    "no range": {"Content-Range": None},
    "shifted": {"Content-Range": f"bytes {PART - 1}-{LENGTH - 1}/{LENGTH}"},
    "short": {"Content-Range": f"bytes {PART}-{PART + 99}/{LENGTH}", "Content-Length": "100"},
    "short of what it says": {"Content-Length": "100"},
    "another length": {"Content-Range": f"bytes {PART}-{LENGTH - 1}/{LENGTH + 1}"},
    "longer file": {"Content-Range": f"bytes {PART}-{LENGTH}/{LENGTH + 1}", "Content-Length": None},
    "no number": {"Content-Range": f"bytes {PART}-{LENGTH - 1}/*"},
    "another unit": {"Content-Range": REST.replace("bytes", "lines")},
    "another version": {"ETag": '"other"'},
}


@pytest.mark.fault("server that lies about ranges or lengths")
@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_range_that_is_not_the_rest_is_not_believed(server, tmp_path, lie, caplog):
    server.behaviours += [Behaviour(cut_after=PART), Behaviour(headers=lie)]
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT
    assert [asked[1:] for asked in server.asked[1:]] == [(f"bytes={PART}-", 206), ("", 200)]
    assert "the server sends another part of the file than the one wanted" in caplog.text


@pytest.mark.fault("server that lies about ranges or lengths")
def test_a_range_that_nobody_asked_for_is_never_a_file(server, tmp_path):
    lie = Behaviour(
        206, headers={"Content-Range": f"bytes 4-{LENGTH - 1}/{LENGTH}"}, body=CONTENT[4:]
    )
    server.behaviours += [lie] * 2
    refused("another part of the file", f"{server.url}/a.root", tmp_path, attempts=2)
    assert names(tmp_path) == []
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("state", ['{"validator": 5}', '{"validator": "a\\nb"}', "[]", "{"])
def test_a_part_whose_state_is_damaged_is_fetched_from_its_start(server, tmp_path, state):
    (tmp_path / ".a.root.part").write_bytes(OTHER)
    (tmp_path / ".a.root.part.json").write_text(state)
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT


def whole(*headers, body=CONTENT):
    lines = "".join(f"{line}\r\n" for line in headers)
    return Behaviour(
        raw=lambda wfile: wfile.write(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body)
    )


@pytest.mark.fault("server that lies about ranges or lengths")
@pytest.mark.parametrize(
    ("behaviour", "match"),
    [
        (whole("Content-Length: 12x"), "the server announces a length of '12x'"),
        (whole(f"Content-Length: {LENGTH + 1}"), "the connection failed"),
        (
            whole("Transfer-Encoding: chunked", body=b"40\r\n" + CONTENT[:60]),
            "the connection failed",
        ),
        (whole("Connection: close"), "does not say how long the file is.*; give its checksum"),
        (whole("Content-Encoding: gzip"), "sends it compressed, although that was declined"),
        (Behaviour(204), "the server answers 204 No Content"),
    ],
    ids=["no number", "too long", "chunk cut off", "none", "compressed", "no content"],
)
def test_a_length_that_cannot_be_is_one_line_and_no_file(server, tmp_path, behaviour, match):
    server.behaviours += [behaviour]
    refused(match, f"{server.url}/a.root", tmp_path, attempts=1)
    assert "a.root" not in names(tmp_path)
    assert fetch(f"{server.url}/a.root", tmp_path).read_bytes() == CONTENT


def test_a_file_without_announced_length_comes_if_its_checksum_is_known(server, tmp_path):
    server.behaviours += [whole("Connection: close")]
    assert fetch(f"{server.url}/a.root", tmp_path, sha256(CONTENT)).read_bytes() == CONTENT


@pytest.mark.fault("file of another length than its record's")
def test_a_file_has_the_length_that_its_record_says(server, tmp_path, caplog):
    url = f"{server.url}/a.root"
    refused(f"has {LENGTH} bytes, its record says {LENGTH + 1}", url, tmp_path, size=LENGTH + 1)
    refused("sends more than the 100 bytes that its record or", url, tmp_path, size=100)
    assert names(tmp_path) == []
    fetch(url, tmp_path, size=LENGTH + 1, on_bad_file="quarantine")
    assert "its record says" in caplog.text
    assert fetch(url, tmp_path, size=LENGTH).read_bytes() == CONTENT


@pytest.mark.fault("answer without end")
@pytest.mark.parametrize(
    ("behaviour", "asked"), [(endless(b"root"), "a"), (Behaviour(), "a")], ids=["sent", "announced"]
)
def test_an_answer_that_is_too_long_ends(server, tmp_path, behaviour, asked):
    server.behaviours += [behaviour]
    refused(
        r"sends more than the 1000000 bytes .*raise simulation\.fetch\.gb_max",
        f"{server.url}/{asked}.root",
        tmp_path,
        gb_max=1e-3,
    )
    assert len(server.asked) == 1
    assert names(tmp_path) == []


@pytest.mark.fault("answer without end")
@pytest.mark.parametrize(
    "begin",
    [
        b"HTTP/1.1 200 OK\r\nX: ",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\nroot",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    ids=["headers", "body", "chunk"],
)
def test_an_answer_that_drips_ends_a_try(server, tmp_path, begin):
    server.behaviours += [dripping(begin)]
    refused(
        r"less than 64 KiB came in 0\.2 s",
        f"{server.url}/a.root",
        tmp_path,
        attempts=1,
        timeout_s=0.2,
    )
    assert "a.root" not in names(tmp_path)


def redirect(target):
    return Behaviour(302, headers={"Location": target})


def test_a_redirect_is_followed(server, tmp_path):
    server.behaviours += [redirect("/b.root"), redirect(f"{server.url}/a.root")]
    assert fetch(f"{server.url}/there.root", tmp_path).read_bytes() == CONTENT
    assert [path for path, *_ in server.asked] == ["/there.root", "/b.root", "/a.root"]


@pytest.mark.fault("address that cannot be asked")
@pytest.mark.parametrize(
    ("target", "match", "asked"),
    [
        ("/a.root", "redirects in circles, or more than 10 times", 11),
        ("ftp://host/a.root", "redirects to ftp://, which is not followed", 1),
        ("file:///etc/passwd", "redirects to file://, which is not followed", 1),
        ("http://[x/a.root", r"cannot be asked \(ValueError", 1),
    ],
    ids=["circle", "ftp", "file", "no address"],
)
def test_a_redirect_that_leads_nowhere_is_not_tried_again(server, tmp_path, target, match, asked):
    server.behaviours += [redirect(target)] * 11
    refused(match, f"{server.url}/a.root", tmp_path, wait_s=60.0)
    assert len(server.asked) == asked
    assert names(tmp_path) == []


def test_a_redirect_never_leaves_https():
    with pytest.raises(UserError, match="redirects to http://, which is not followed"):
        web.redirected("https://host/a", "https://host/a", "http://host/a")
    assert web.redirected("http://host/a", "http://host/a", "https://host/b") == "https://host/b"


@pytest.mark.fault("address that cannot be asked")
@pytest.mark.parametrize("url", ["http://127.0.0.1:99999/a.root", "http://[x/a.root", "http:///a"])
def test_an_address_that_cannot_be_is_not_tried_again(tmp_path, url, caplog):
    refused(r"cannot be asked \(.*\); correct the address", url, tmp_path, wait_s=60.0)
    assert "try 2" not in caplog.text


@pytest.mark.fault("address that cannot be asked")
def test_a_certificate_that_is_not_valid_is_not_tried_again(tmp_path, monkeypatch):
    def get(*_, **__):
        raise requests.exceptions.SSLError("no") from ssl.SSLCertVerificationError("self-signed")

    monkeypatch.setattr(requests.Session, "get", get)
    refused("certificate is not valid .*self-signed", "https://host/a", tmp_path, wait_s=60.0)


def test_other_protocols_go_through_fsspec(tmp_path):
    source = tmp_path / "there.root"
    source.write_bytes(CONTENT)
    (tmp_path / "here").mkdir()
    assert fetch(f"file://{source}", tmp_path / "here", sha256(CONTENT)).read_bytes() == CONTENT
    refused("no such file there", f"file://{tmp_path}/absent.root", tmp_path / "here")


@pytest.mark.skipif(find_spec("fsspec_xrootd") is not None, reason="the package is there")
def test_a_protocol_without_its_package_is_one_line(tmp_path):
    refused("for root:// install fsspec-xrootd", "root://host.example//store/a.root", tmp_path)


class Silent(fsspec.AbstractFileSystem):
    """A server of XRootD that says nothing when it is asked, or once a file is open."""

    protocol = "root"
    asked: ClassVar[list[str]] = []
    over = threading.Event()  # never, while a test waits

    def _answer(self, question):
        self.asked.append(question)
        if question not in self.answers:
            self.over.wait(60)
            raise OSError("the test is over")

    def size(self, path):
        self._answer("size")
        return len(CONTENT)

    def open(self, path, *_, **__):
        self._answer("open")
        return nullcontext(self)

    def seek(self, place): ...

    def read(self, length):
        self._answer("read")
        return CONTENT[:length]


@pytest.mark.fault("server that is slow or fails")
@pytest.mark.parametrize("answers", [[], ["size"], ["size", "open"]])
def test_a_server_of_another_protocol_that_says_nothing_ends_a_try(
    tmp_path, monkeypatch, caplog, answers
):
    state = {"answers": frozenset(answers), "asked": [], "over": threading.Event()}
    for name, value in state.items():
        monkeypatch.setattr(Silent, name, value, raising=False)
    monkeypatch.setitem(_registry, "root", Silent)
    address = "root://host.example//store/a.root"
    said = refused("run again", address, tmp_path, attempts=2, timeout_s=0.05)
    Silent.over.set()
    assert said.startswith(f"{address}: the connection failed (less than 64 KiB came in 0.05 s)")
    assert caplog.text.count("; try 2 of 2") == 1
    assert Silent.asked.count(["size", "open", "read"][len(answers)]) == 2
    assert not (tmp_path / "a.root").exists()
