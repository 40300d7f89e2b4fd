"""A private PostgreSQL server in a temporary folder, reached through a Unix socket only."""

import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

_DEBIAN = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # not on the PATH there
_PATH = os.pathsep.join([os.environ["PATH"], *map(str, _DEBIAN[::-1])])
_USERS = ("postgres", "nobody")  # the server refuses to run as root


def why_not() -> str | None:
    """Return why no server can be started here, or None."""
    missing = [
        name for name in ("initdb", "pg_ctl", "psql") if shutil.which(name, path=_PATH) is None
    ]
    if missing:
        return (
            f"PostgreSQL is not installed ({', '.join(missing)} missing): apt-get install"
            " postgresql"
        )
    return None


class Server:
    """A running server; :meth:`stop` ends it and removes its folder."""

    def __init__(self) -> None:
        self._user: list[str] = []
        # pytest's own are closed to other users, and too long for a socket
        self.folder = Path(tempfile.mkdtemp(prefix="pg"))
        if os.geteuid() == 0:
            user = next(
                pwd.getpwnam(name)
                for name in _USERS
                if name in {entry.pw_name for entry in pwd.getpwall()}
            )
            self._user = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
            ]
            os.chown(self.folder, user.pw_uid, user.pw_gid)
        self._databases = 0
        self._call(
            "initdb",
            "--auth=trust",
            "--username=search",
            "--no-sync",
            "--pgdata",
            str(self.folder / "data"),
        )
        self.start()

    def start(self) -> None:
        """Start the server and return when it answers."""
        options = f"-c listen_addresses= -c unix_socket_directories={self.folder}"
        self._call(
            "pg_ctl",
            "start",
            "--wait",
            "--pgdata",
            str(self.folder / "data"),
            "--options",
            options,
            "--log",
            str(self.folder / "log"),
        )

    def crash(self) -> None:
        """End the server's processes at once; the next start recovers what was acknowledged."""
        self._call("pg_ctl", "stop", "--mode=immediate", "--pgdata", str(self.folder / "data"))

    def stop(self) -> None:
        """End the server and remove all of it."""
        try:
            self.crash()
        finally:
            shutil.rmtree(self.folder)

    def new_database(self) -> str:
        """Create an empty database and return its URL."""
        self._databases += 1
        name = f"search{self._databases}"
        self._call(
            "psql",
            "--quiet",
            f"--host={self.folder}",
            "--username=search",
            "--command",
            f"CREATE DATABASE {name}",
            "postgres",
        )
        return f"postgresql+psycopg2://search@/{name}?host={self.folder}"

    def _call(self, *command: str) -> None:
        log = self.folder / "commands.log"  # a pipe would stay open in the server
        with log.open("w") as output:
            done = subprocess.run(
                [*self._user, *command],
                stdout=output,
                stderr=output,
                env={**os.environ, "PATH": _PATH},
                cwd=self.folder,
            )
        assert done.returncode == 0, log.read_text()
