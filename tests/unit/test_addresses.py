"""Passwords and tokens in addresses: refused by the configuration, shown nowhere."""

import logging
from pathlib import Path

import pytest

from particleforge.addresses import holds_secret, masked
from particleforge.config.detector import SampleConfig
from particleforge.config.load import load_run, validate
from particleforge.errors import UserError
from particleforge.logs import job_log

CONFIG = Path(__file__).parents[2] / "config"
DATABASES = [
    "postgresql+psycopg2://me:hunter2@host:5432/studies",
    "postgresql://me:hun@ter2@host/studies",
    "postgresql://me:hunter2/hunter2@host/studies",
    "postgresql://me:hun ter2@host/studies",
    "postgresql://me:hunter2@[host/studies",
    "postgresql://me@host/studies?password=hunter2",
    "postgresql://me@host/studies?sslmode=require&sslpassword=hunter2",
    "mysql://me@host/studies?passwd=hunter2",
    "mysql://me@host/studies?pass%77d=hunter2",
    "mysql://me@host/studies?x=1;pwd=hunter2",
    "postgresql://me@host/studies?password = hunter2",
    "postgresql://me@host/studies?scram_client_key=hunter2",
    "mssql+pyodbc:///?odbc_connect=UID%3Dme%3BPWD%3Dhunter2",
    "postgresql://me@host:hunter2/studies",
    "postgresql//me:hunter2@host/studies",
    "me:hunter2@host/studies",
    "hunter2",
]
FILES = [
    "https://me:hunter2@host/a.root",
    "https://me:80/hunter2@host/a.root",
    "https://hunter2@host/a.root",
    "https://me:hunter2@[host/a.root",
    "https://[hunter2/a.root",
    "https://host:hunter2/a.root",
    "https://host/a.root?token=hunter2",
    "https://host/a.root?download=1&access_token=hunter2",
    "https://host/a.root?X-Amz-Date=1&X-Amz-Signature=hunter2",
    "https://host/a.root?sig=hunter2",
    "root://host//a.root?authz=Bearer%20hunter2",
    "me:hunter2@host/a.root",
]
HARMLESS = [
    "postgresql+psycopg2://me@host:5432/studies?sslmode=verify-full&passfile=/home/me/.pgpass",
    "postgresql:///studies?host=/run/postgresql&sslkey=/home/me/key.pem",
    "sqlite:////data/my studies/a.db",
    "https://host:8443/a%40b.root?download=1",
    "root://me@eos.example//store/a.root",
    "zenodo://record/7/a b*.root",
    "/data/run:3/a.root",
]


def refused(key, call):
    with pytest.raises(UserError) as raised:
        call()
    said = str(raised.value)
    assert said.startswith(f"--config: {key}")
    assert "\n" not in said
    assert "hunter" not in said
    assert "ter2" not in said
    return said


@pytest.mark.fault("secret in the configuration")
@pytest.mark.parametrize("url", DATABASES)
def test_the_storage_of_a_search_has_no_secret(url):
    said = refused("hpo.storage_url: ", lambda: load_run(CONFIG, {"hpo": {"storage_url": url}}))
    assert "holds a password, token or key" in said or "not repeated here" in said
    hidden = {"hpo": {"storage_url": [url]}}, {"hpo": f"storage_url {url}"}
    if holds_secret(url) and " " not in url:
        for mistake in hidden:  # of another kind, in which the address is shown
            refused("hpo", lambda mistake=mistake: load_run(CONFIG, mistake))


@pytest.mark.fault("secret in the configuration")
@pytest.mark.parametrize("url", FILES)
def test_a_file_has_no_secret(url):
    sample = {"label": "a", "files": ["/data/a.root", url]}
    said = refused("files", lambda: validate(SampleConfig, sample, "--config"))
    assert "holds a password, token or key" in said or "not repeated here" in said


@pytest.mark.fault("secret in the configuration")
def test_other_addresses_have_no_secret():
    fetch = {"zenodo_url": "https://me:hunter2@zenodo.org"}
    refused(
        "simulation.fetch.zenodo_url: holds a password, token or key",
        lambda: load_run(CONFIG, {"simulation": {"fetch": fetch}}),
    )
    refused(
        "simulation.fetch.zenodo_url: ",
        lambda: load_run(CONFIG, {"simulation": {"fetch": {"zenodo_url": "ftp://zenodo.org"}}}),
    )
    refused(
        "results_dir: holds a password, token or key",
        lambda: load_run(CONFIG, {"results_dir": "s3://me:hunter2@host/results"}),
    )


@pytest.mark.parametrize("url", HARMLESS)
def test_what_is_no_secret_is_shown_and_taken(url):
    assert masked(url) == url
    assert SampleConfig(label="a", files=(url,)).files == (url,)
    if url.startswith(("postgres", "sqlite")):
        assert load_run(CONFIG, {"hpo": {"storage_url": url}}).hpo.storage_url == url


def test_messages_of_others_are_masked():
    assert masked("FILE: see https://me:hunter2@host/a.root, or https://host/b?token=x: 404") == (
        "FILE: see https://***@host/a.root, or https://host/b?token=*** 404"
    )
    said = "DETECTOR: samples.a.files: https://host:80/a.root?download=1: no such file; try 2"
    assert masked(said) == str(UserError(said)) == said


def test_a_log_repeats_no_secret(tmp_path, monkeypatch):
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    try:
        with pytest.raises(RuntimeError), job_log(tmp_path / "a.log"):
            logging.getLogger("particleforge").info("asked %s", FILES[0])
            raise RuntimeError("exceeded with url: /a.root?token=" + "hunter2")
    finally:
        logging.captureWarnings(False)
        for handler in root.handlers:
            handler.close()
    text = (tmp_path / "a.log").read_text()
    assert "asked https://***@host/a.root" in text
    assert text.rstrip().endswith("exceeded with url: /a.root?token=***")
