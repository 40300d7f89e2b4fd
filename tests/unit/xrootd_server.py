"""A real XRootD server on a folder, for ``test_fetch_xrootd``."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path

_CONFIG = """
xrd.port {port}
xrd.network nodnr
oss.localroot {folder}/data
all.export /store r/o
all.adminpath {folder}/admin
all.pidpath {folder}/admin
"""
_USER = ("-R", "nobody")  # the server refuses to run as root


def why_not() -> str:
    """Return why no server can be run here; empty if it can."""
    if shutil.which("xrootd") is None:
        return "XRootD is not installed: apt-get install xrootd-server"
    return (
        ""
        if find_spec("fsspec_xrootd")
        else "its client is not installed: pip install fsspec-xrootd"
    )


@contextmanager
def xrootd_serving(folder: Path, files: dict[str, bytes]) -> Iterator[str]:
    """Serve ``files`` below ``/store`` and yield the address of the server.

    ``folder`` must be readable by everybody.
    """
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    for name, content in files.items():
        path = folder / "data/store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (folder / "admin").mkdir()
    (folder / "admin").chmod(0o777)
    (folder / "server.cfg").write_text(_CONFIG.format(port=port, folder=folder), encoding="utf-8")
    with (folder / "server.log").open("w", encoding="utf-8") as log:
        command = [
            "xrootd",
            "-c",
            str(folder / "server.cfg"),
            *(_USER if os.geteuid() == 0 else ()),
        ]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        while process.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.1)
        assert process.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
        yield f"root://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()
