"""A password in an address, given or sent by a server, is nowhere in what a run leaves or says."""

import pytest
from chain import Chain
from tests.unit.http_server import Behaviour, serving

SECRET = "hunter2"
CONTENT = b"root" + bytes(1000)


def told(chain, text):
    """Return where the secret is: files of the folder, their names, what was printed."""
    found = [
        str(path.relative_to(chain.folder))
        for path in chain.folder.rglob("*")
        if SECRET in path.name or (path.is_file() and SECRET.encode() in path.read_bytes())
    ]
    return found + ["what was printed"] * (SECRET in text)


@pytest.mark.fault("secret in the configuration")
@pytest.mark.parametrize(
    "address",
    ["//me:{}@host/a.root", "//host/a.root?x=1&password={}", "//me:{}@[host/a.root", "//[{}/a"],
)
def test_an_address_that_holds_one_is_refused_and_nowhere_repeated(tmp_path, address):
    new = Chain.new(tmp_path / "new")
    address = address.format(SECRET)
    for key, config in (
        ("hpo.storage_url", f"hpo={{storage_url: 'postgresql:{address}'}}"),
        ("apply.files", f"apply={{files: ['https:{address}'], model: model.onnx}}"),
    ):
        text = new.run("apply", config=(config,), check=False)
        assert f"--config: {key}" in text
        assert "holds a password" in text or "not repeated here" in text
        assert told(new, text) == []


@pytest.mark.fault("secret in the configuration")
def test_one_that_a_server_sends_is_nowhere_repeated(tmp_path):
    new = Chain.new(tmp_path / "new")
    (new.folder / "model.onnx").write_bytes(b"")
    with serving() as server:
        there = server.url.replace("//", f"//me:{SECRET}@")
        server.files[f"/b.root?password={SECRET}"] = CONTENT
        leads = Behaviour(status=302, headers={"Location": f"{there}/b.root?password={SECRET}"})
        fails = Behaviour(status=302, headers={"Location": f"{there}/c?password={SECRET}&x=[y"})
        odd = Behaviour(status=302, headers={"Location": f"http://me:{SECRET}@[host/c"})
        config = (
            f"apply={{files: ['{server.url}/a.root'], model: model.onnx}}",
            "simulation={fetch: {wait_s: 0, attempts: 2}}",
        )
        for behaviour in (fails, odd):
            server.behaviours.append(behaviour)
            text = new.run("apply", "--until", "fetch_file", config=config, check=False)
            assert f"{server.url}/a.root: " in text
            assert told(new, text) == []
        server.behaviours.append(leads)
        text = new.run("apply", "--until", "fetch_file", config=config)
    assert [path.read_bytes() for path in new.folder.rglob("a.root")] == [CONTENT]
    assert told(new, text) == []
