"""Small and read-only disks: file systems in memory that a mount namespace of their own holds, so
that no other process sees them.
"""

import os
import shutil
import subprocess
from pathlib import Path


class Disk:
    """A file system of ``size_kib``, mounted over ``folder`` for a process that only keeps it.

    This process reaches it as ``path``; a command that shall see it under its usual name goes
    through ``run``.
    """

    def __init__(self, folder: Path, size_kib: int) -> None:
        folder.mkdir(parents=True)
        script = (
            f"mount -t tmpfs -o size={size_kib}k tmpfs '{folder}' && echo ready && exec cat >&2"
        )
        self._keeper = subprocess.Popen(
            [*unshare(), "sh", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._keeper.stdout is not None
        assert self._keeper.stdout.readline() == b"ready\n", "the file system could not be mounted"
        self.folder = folder
        self.path = Path(f"/proc/{self._keeper.pid}/root{folder}")

    def run(self, *command: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        """Run a command in the namespace and return what it printed."""
        enter = ["nsenter", f"--target={self._keeper.pid}", "--mount"]
        user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
        inside = ["sh", "-c", f"cd '{self.folder}' && exec \"$@\"", "sh"]
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [*enter, *user, *inside, *map(str, command)],
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )
        return done

    def remount(self, options: str) -> None:
        """Change the size (``size=64m``) or make the file system read-only (``ro``) or writable
        (``rw``).
        """
        done = self.run("mount", "-t", "tmpfs", "-o", f"remount,{options}", "tmpfs", self.folder)
        assert done.returncode == 0, done.stderr

    def close(self) -> None:
        """Let the file system go."""
        self._keeper.communicate()

    def files(self) -> dict[str, bytes]:
        """Return the files on the disk, hidden ones included, with their bytes."""
        return {
            str(file.relative_to(self.path)): file.read_bytes()
            for file in sorted(self.path.rglob("*"))
            if file.is_file()
        }


def unshare() -> list[str]:
    """Return the command that starts another one in a mount namespace of its own."""
    return ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]


def why_not() -> str | None:
    """Return why disks cannot be made here, or None."""
    missing = [name for name in ("unshare", "nsenter", "mount") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} is not installed (util-linux)"
    script = "mount -t tmpfs tmpfs /mnt"
    done = subprocess.run(
        [*unshare(), "sh", "-c", script], capture_output=True, text=True, check=False
    )
    return (
        None
        if done.returncode == 0
        else f"this machine allows no mount namespace: {done.stderr.strip()}"
    )
