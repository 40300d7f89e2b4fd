"""Answers of a web server, changed by bytes: a file's, with ranges and without, and a record's."""

import hashlib
import json
import random
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from particleforge.config.settings import FetchSettings
from particleforge.inputs.fetch import fetch_file
from particleforge.inputs.zenodo import record_files

from ..unit.http_server import Behaviour, serving
from .attack_config import edited
from .attacks import BYTES, outcome, spoiled

CONTENT = b"root" + random.Random(5).randbytes(2000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
TIMEOUT_S = 1.0
RECORD = {
    "files": [
        {
            "key": f"{name}.root",
            "size": len(CONTENT),
            "checksum": f"md5:{hashlib.md5(CONTENT).hexdigest()}",
            "links": {"self": f"HOST/{name}.root"},
        }
        for name in "ab"
    ]
}
HEADERS = (
    "Content-Length: -1",
    "Content-Length: 99999999999999999999",
    "Content-Length: 2004, 7",
    "Content-Range: bytes 0-9/10",
    "Content-Range: bytes 5-2003/*",
    "Content-Encoding: gzip",
    "Transfer-Encoding: chunked",
    "Location: file:///etc/passwd",
    "ETag: W/\x07",
    "X: " + "y" * 70_000,
)
STATUS = ("200 OK", "206 Part", "301 Moved", "304 Same", "416 No", "404 No", "500 No", "999 x", "x")


class Servers:
    """Attempts on downloads and listings of one server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "fetched"
        self._stack = ExitStack()
        self.server = self._stack.enter_context(serving(files={"/a.root": CONTENT}))

    def close(self) -> None:
        self._stack.close()

    def attempt(self, number: int) -> tuple[str, str]:
        rng = random.Random(f"server {number}")
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        self.server.behaviours.clear()
        return self._list(rng) if number % 3 == 0 else self._fetch(rng)

    def _fetch(self, rng: random.Random) -> tuple[str, str]:
        """Fetch a file, of which a part may be there, while the server errs once or twice."""
        known = rng.random() < 0.5  # without a checksum nothing tells bytes that were exchanged
        part = self.folder / ".a.root.part"
        if rng.random() < 0.5:
            part.write_bytes(CONTENT[: rng.randrange(len(CONTENT))])
            state = {"validator": self.server.etag("/a.root"), "length": len(CONTENT)}
            text = json.dumps(state).encode()
            part.with_name(f"{part.name}.json").write_bytes(
                spoiled(text, rng.choice(BYTES), rng) or b"" if rng.random() < 0.3 else text
            )
        for _ in range(rng.randrange(1, 3)):
            body = spoiled(CONTENT, rng.choice(BYTES), rng) if known else CONTENT
            answer = _answer(rng, body or b"")
            self.server.behaviours.append(Behaviour(raw=lambda wire, a=answer: wire.write(a)))

        def use() -> str:
            output = self.folder / "a.root"
            url = f"{self.server.url}/a.root"
            fetch_file(
                FetchSettings(url=url, checksum=CHECKSUM if known else "", size=len(CONTENT)),
                output,
                attempts=3,
                wait_s=0.0,
                timeout_s=TIMEOUT_S,
                gb_max=1e-3,
                on_bad_file="fail",
            )
            return "" if output.read_bytes() == CONTENT else "another file than the one wanted"

        found, said = outcome(use)
        if found == "refused" and (self.folder / "a.root").exists():
            return "silent", f"leaves a file: {said}"
        return found, said

    def _list(self, rng: random.Random) -> tuple[str, str]:
        """List the files of a record."""
        text = json.dumps(RECORD).replace("HOST", self.server.url)
        if rng.random() < 0.6:
            tree = json.loads(text)
            edited(tree, rng)
            body = json.dumps(tree).encode()
        else:
            body = spoiled(text.encode(), rng.choice(BYTES), rng) or b""
        answer = _answer(rng, body) if rng.random() < 0.3 else _whole("200 OK", body)
        self.server.behaviours.append(Behaviour(raw=lambda wire, a=answer: wire.write(a)))

        def use() -> str:
            files = record_files(self.server.url, "7", TIMEOUT_S)
            host = urlsplit(self.server.url).netloc
            away = [file.url for file in files if urlsplit(file.url).netloc != host]
            return f"leads to {away[0]}" if away else ""

        return outcome(use)


def _whole(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "Connection: close"]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


def _answer(rng: random.Random, body: bytes) -> bytes:
    """Return an answer with a wrong status, wrong headers, or changed bytes in its head."""
    headers: list[Any] = rng.sample(HEADERS, rng.randrange(3))
    whole = _whole(rng.choice(STATUS) if rng.random() < 0.6 else "200 OK", body, *headers)
    if rng.random() < 0.4:
        head, _, rest = whole.partition(b"\r\n\r\n")
        whole = (spoiled(head, rng.choice(BYTES), rng) or b"") + b"\r\n\r\n" + rest
    return whole[: rng.randrange(len(whole))] if rng.random() < 0.2 else whole
