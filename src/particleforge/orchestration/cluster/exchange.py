"""Files exchanged between login node and job: shared folder, delay, agreement of clocks.

Inputs -> outputs: a folder that both sides see -> an ``Exchange``. The job writes ``<name>.ping``;
as soon as the login node sees that, it writes ``<name>.pong``. The job measures the time between
both on its own clock. The answer was written between the beginning and the end of that time, so its
modification time must lie there too; what it lies outside is the skew of the clocks that stamp
files, and those times are what Snakemake compares.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

LOGIN_FILE = "from_login"
_POLL_S = 0.05


@dataclass(frozen=True)
class Finding:
    """One line of the check: what was looked at, whether it is right, the finding, the remedy."""

    what: str
    state: Literal["OK", "WRONG"]
    seen: str
    remedy: str = ""

    def line(self) -> str:
        """Return the line that the user reads."""
        return f"{self.state:<5} {self.what}: {self.seen}" + (
            f"; {self.remedy}" if self.remedy else ""
        )


@dataclass(frozen=True)
class Exchange:
    """What a job saw of the shared folder; times in seconds, None where no answer came."""

    sees_login: bool
    round_trip_s: float | None = None
    skew_s: float | None = None


def ask(folder: Path, name: str, timeout_s: float) -> Exchange:
    """Exchange files with the login node, from a job."""
    if not _listed(folder, LOGIN_FILE):
        return Exchange(sees_login=False)
    ping, pong = folder / f"{name}.ping", folder / f"{name}.pong"
    began = time.monotonic()
    ping.touch()
    while not _listed(folder, pong.name):
        if time.monotonic() - began > timeout_s:
            return Exchange(sees_login=True)
        time.sleep(_POLL_S)
    round_trip_s = time.monotonic() - began
    return Exchange(
        True, round_trip_s, clock_skew(ping.stat().st_mtime, pong.stat().st_mtime, round_trip_s)
    )


def answer(folder: Path) -> None:
    """Answer every question in the folder that has no answer yet, from the login node."""
    for ping in folder.glob("*.ping"):
        pong = ping.with_suffix(".pong")
        if not pong.exists():
            pong.touch()


def clock_skew(ping_s: float, pong_s: float, round_trip_s: float) -> float:
    """Return by how many seconds the login node's clock is ahead of the job's.

    0 where the times of both files fit the round trip.
    """
    later = pong_s - ping_s
    return later - min(max(later, 0.0), round_trip_s)


def _listed(folder: Path, name: str) -> bool:
    """Return whether the folder lists a file: listing makes a network file system look again."""
    return folder.is_dir() and any(path.name == name for path in folder.iterdir())
