"""Snakemake in a copy of a process that has imported it: most tests start it, and look at plans.

The process forks for each call; its copy runs Snakemake's own command line in the folder and the
environment of the call. Nothing but imports happens before, so no call sees anything of another.
"""

import atexit
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any


class Starter:
    """A process that starts Snakemake."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(self.close)

    def run(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str], seconds: int
    ) -> tuple[int, str]:
        """Return the exit status of ``snakemake`` and what it printed, within ``seconds``."""
        with tempfile.TemporaryDirectory() as printed:
            call: dict[str, Any] = {"command": command, "folder": str(folder)}
            call |= {"environment": dict(environment), "seconds": seconds, "printed": printed}
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.write(json.dumps(call) + "\n")
            self._process.stdin.flush()
            status = int(self._process.stdout.readline())
            return status, "".join(
                (Path(printed) / name).read_text() for name in ("stdout", "stderr")
            )

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


@cache
def starter() -> Starter:
    """Return the one of this process."""
    return Starter()


def become(call: dict[str, Any]) -> None:
    """Take the folder, the environment and the output that a call asks for."""
    signal.alarm(call["seconds"])
    os.chdir(call["folder"])
    os.environ.clear()
    os.environ.update(call["environment"])
    sys.argv = call["command"]
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        path = Path(os.devnull) if name == "stdin" else Path(call["printed"]) / name
        opened = os.open(path, os.O_RDONLY if name == "stdin" else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, descriptor)
        os.close(opened)


def serve() -> None:
    """Start Snakemake for each line of standard input, and answer with its exit status."""
    from snakemake.cli import main

    import particleforge.orchestration.workflow  # noqa: F401

    for line in iter(sys.stdin.readline, ""):
        child = os.fork()
        if not child:
            become(json.loads(line))
            main()
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
