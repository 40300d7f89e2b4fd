"""A small HTTP server that serves bytes and misbehaves on demand: it lies, drips, never ends.

What it was asked for is recorded.
"""

import hashlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import BinaryIO


@dataclass
class Behaviour:
    """How one request is answered: another status, a part of the body only, late, or with lies."""

    status: int = 0
    cut_after: int | None = None  # bytes of the body after which the connection is closed
    silent_s: float = 0.0  # pause after the cut
    headers: Mapping[str, str | None] = field(default_factory=dict)  # others; None: left out
    body: bytes | None = None
    raw: Callable[[BinaryIO], None] | None = None  # writes the whole answer


def dripping(begin: bytes, pause_s: float = 0.02, times: int = 100) -> Behaviour:
    """Return an answer that begins well and goes on byte by byte."""

    def answer(wfile: BinaryIO) -> None:
        wfile.write(begin)
        for _ in range(times):
            wfile.write(b"x")
            wfile.flush()
            time.sleep(pause_s)

    return Behaviour(raw=answer)


def endless(begin: bytes) -> Behaviour:
    """Return an answer in chunks that go on for as long as somebody listens."""

    def answer(wfile: BinaryIO) -> None:
        wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = begin.ljust(1 << 16, b"x")
        while True:
            wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))

    return Behaviour(raw=answer)


@dataclass
class Server:
    """Files by path; the next requests meet ``behaviours``, one each, then all is well."""

    files: dict[str, bytes] = field(default_factory=dict)
    behaviours: deque[Behaviour] = field(default_factory=deque)
    ranges: bool = True
    etags: bool = True
    asked: list[tuple[str, str, int]] = field(default_factory=list)  # path, range header, status
    url: str = ""

    def etag(self, path: str) -> str:
        return f'"{hashlib.sha256(self.files.get(path, b"")).hexdigest()[:12]}"'

    def count(self, path: str) -> int:
        return sum(asked == path for asked, _, _ in self.asked)


@contextmanager
def serving(**settings):
    """Yield a running server."""
    server = Server(**settings)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_):
            pass

        def do_GET(self):
            behaviour = server.behaviours.popleft() if server.behaviours else Behaviour()
            wanted = self.headers.get("Range", "")
            status = behaviour.status or (200 if self.path in server.files else 404)
            if behaviour.raw is not None:
                server.asked.append((self.path, wanted, status))
                self.close_connection = True
                with suppress(OSError):  # the client has left
                    behaviour.raw(self.wfile)
                return
            if status != 200 and not behaviour.headers:
                server.asked.append((self.path, wanted, status))
                self.send_error(status)
                return
            body, begin = server.files.get(self.path, b""), 0
            etag = server.etag(self.path)
            if wanted and server.ranges and self.headers.get("If-Range", etag) == etag:
                begin, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if begin >= len(body):
                    status = 416
            server.asked.append((self.path, wanted, status))
            self.send_response(status)
            rest = b"" if status == 416 else body[begin:]
            rest = rest if behaviour.body is None else behaviour.body
            headers = {
                "ETag": etag if server.etags else None,
                "Content-Range": f"bytes {begin}-{len(body) - 1}/{len(body)}"
                if status == 206
                else None,
                "Content-Length": str(len(rest)),
            }
            for name, value in {**headers, **behaviour.headers}.items():
                if value is not None:
                    self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(rest[: behaviour.cut_after])
            if behaviour.cut_after is not None:
                self.wfile.flush()
                time.sleep(behaviour.silent_s)
                self.close_connection = True

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(
            target=http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
