"""A small HTTP server that serves bytes and misbehaves on demand.

What it was asked for is recorded.
"""

import hashlib
import threading
import time
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one request is answered: another status, a part of the body only, or late."""

    status: int = 0
    cut_after: int | None = None  # bytes of the body after which the connection is closed
    silent_s: float = 0.0  # pause after the cut


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
        return f'"{hashlib.sha256(self.files[path]).hexdigest()[:12]}"'

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
            if status != 200:
                server.asked.append((self.path, wanted, status))
                self.send_error(status)
                return
            body, begin = server.files[self.path], 0
            same = self.headers.get("If-Range", server.etag(self.path)) == server.etag(self.path)
            if wanted and server.ranges and same:
                begin, status = int(wanted.removeprefix("bytes=").rstrip("-")), 206
                if begin >= len(body):
                    status = 416
            server.asked.append((self.path, wanted, status))
            self.send_response(status)
            if server.etags:
                self.send_header("ETag", server.etag(self.path))
            if status == 206:
                self.send_header("Content-Range", f"bytes {begin}-{len(body) - 1}/{len(body)}")
            rest = b"" if status == 416 else body[begin:]
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
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
