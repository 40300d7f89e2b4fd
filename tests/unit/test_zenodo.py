"""What a record of Zenodo holds, asked of a server that is gone, drips, or says what cannot be."""

import json

import pytest

from particleforge.errors import UserError
from particleforge.inputs import zenodo
from particleforge.inputs.zenodo import record_files

from .http_server import dripping, endless, serving


@pytest.fixture
def server():
    with serving() as running:
        yield running


def entry(url, name="a.root", path="/a.root", **other):
    plain = {"key": name, "size": 4, "checksum": f"md5:{'0' * 32}", "links": {"self": url + path}}
    return {**plain, **other}


def record(*entries):
    return json.dumps({"id": 7, "files": entries}).encode()


def test_the_files_of_a_zenodo_record(server):
    server.files["/api/records/7"] = record(
        entry(server.url, "a b.root", "/api/records/7/files/a b.root/content")
    )
    (found,) = record_files(server.url, "7", 5.0)
    assert (found.name, found.size, found.checksum) == ("a b.root", 4, f"md5:{'0' * 32}")
    assert found.url == f"{server.url}/api/records/7/files/a b.root/content"


def not_listed(match, url, timeout_s=5.0):
    with pytest.raises(UserError, match=match) as raised:
        record_files(url, "7", timeout_s)
    assert "\n" not in str(raised.value)
    assert str(raised.value).startswith(f"{url}/api/records/7: ")


@pytest.mark.fault("Zenodo record that cannot be listed")
@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "404 Not Found; correct the record's number"),
        (b"<html>", "not a record's description"),
        (b"{}", "not a record's description"),
        (b"[" * 9999, "not a record's description"),
    ],
    ids=["absent", "page", "empty", "deep"],
)
def test_a_zenodo_record_that_cannot_be_listed_is_one_line(server, content, match):
    if content is not None:
        server.files["/api/records/7"] = content
    not_listed(match, server.url)


@pytest.mark.fault("Zenodo record that cannot be listed")
def test_a_zenodo_that_is_gone_drips_or_never_ends_is_one_line(server, monkeypatch):
    with serving() as gone:
        url = gone.url
    only = "the files of a record can only be listed with a connection to Zenodo"
    not_listed(rf"the connection failed \(ConnectionError: .*\); {only}", url)
    server.behaviours += [dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n")]
    not_listed(rf"less than 64 KiB came in 0\.2 s\); {only}", server.url, timeout_s=0.2)
    monkeypatch.setattr(zenodo, "_BYTES_MAX", 1 << 20)
    server.behaviours += [endless(b"{")]
    not_listed("longer than 1 MiB", server.url)


@pytest.mark.fault("Zenodo record of other types")
@pytest.mark.parametrize(
    ("other", "match"),
    [
        ({"key": 7}, r"files\.0\.key: Input should be a valid string"),
        ({"key": ""}, r"files\.0\.key: String should have at least 1 character"),
        ({"key": "a\x1b[2J.root"}, "must have no control characters"),
        ({"size": "4"}, r"files\.0\.size: Input should be a valid integer"),
        ({"size": True}, r"files\.0\.size: Input should be a valid integer"),
        ({"size": -4}, r"files\.0\.size: Input should be greater than or equal to 0"),
        ({"checksum": None}, r"files\.0\.checksum: Input should be a valid string"),
        ({"checksum": "crc32:00"}, r"files\.0\.checksum: String should match pattern"),
        ({"links": ["self"]}, r"files\.0\.url: Field required"),
        ({"links": {"self": 5}}, r"files\.0\.links\.self: Input should be a valid string"),
        ({"links": {"self": "file:///etc/passwd"}}, "must be an address of http or https"),
        ({"links": {"self": "ftp://127.0.0.1/a"}}, "must be an address of http or https"),
        ({"links": {"self": "http://127.0.0.1:x/a"}}, "must be an address of http or https"),
        ({"links": {"self": "http://elsewhere/a.root"}}, "its link leads to http://elsewhere"),
    ],
    ids=str,
)
def test_a_zenodo_record_of_other_types_or_hosts_is_one_line(server, other, match):
    server.files["/api/records/7"] = record(entry(server.url, **other))
    not_listed(rf"not a record's description \(.*{match}", server.url)


@pytest.mark.fault("Zenodo record of other types")
def test_a_zenodo_record_names_a_file_once(server):
    server.files["/api/records/7"] = record(entry(server.url), entry(server.url, path="/b.root"))
    not_listed(r"a\.root: stands there twice", server.url)
