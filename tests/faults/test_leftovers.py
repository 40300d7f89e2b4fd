"""What a killed writer leaves beside a file: the next writer of that file clears it, and spares
writers that are alive.
"""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from particleforge import artefacts
from particleforge.artefacts import atomic_directory, atomic_output
from particleforge.training.checkpoint import latest_state, write_checkpoint

WRITER = """
import sys
from pathlib import Path
from particleforge import artefacts
with getattr(artefacts, sys.argv[1])(Path(sys.argv[2])) as temporary:
    file = temporary / "part" if temporary.is_dir() else temporary
    file.write_text("half" * 1000)
    print("writing", flush=True)
    sys.stdin.readline()
    file.write_text("other")
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a process that has written half of ``tmp_path/file`` and goes on when it is sent a
    line.
    """
    process = start("atomic_output", tmp_path / "file")
    yield process
    process.kill()
    process.communicate()


def start(kind: str, target: Path) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(target)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "writing\n"
    return process


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.fault("job killed while writing")
@pytest.mark.parametrize("kind", ["atomic_output", "atomic_directory"])
def test_the_next_writer_clears_what_a_killed_one_left(tmp_path: Path, kind: str) -> None:
    process = start(kind, tmp_path / "file")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(names(tmp_path)) == 1
    assert names(tmp_path)[0].startswith(".file.")
    if kind == "atomic_output":
        artefacts.write_text(tmp_path / "file", "whole")
    else:
        with atomic_directory(tmp_path / "file") as temporary:
            (temporary / "part").write_text("whole")
    assert names(tmp_path) == ["file"]
    written = tmp_path / "file" / "part" if kind == "atomic_directory" else tmp_path / "file"
    assert written.read_text() == "whole"


@pytest.mark.fault("two writers of one file")
def test_two_writers_at_once_do_not_disturb_each_other(
    tmp_path: Path, writer: "subprocess.Popen[str]"
) -> None:
    artefacts.write_text(tmp_path / "file", "mine")
    assert (tmp_path / "file").read_text() == "mine"
    writer.communicate("\n")
    assert writer.returncode == 0
    assert (tmp_path / "file").read_text() == "other"  # whole, of whoever comes last
    assert names(tmp_path) == ["file"]


@pytest.mark.fault("two writers of one file")
def test_a_failing_writer_spares_the_other(tmp_path: Path, writer: "subprocess.Popen[str]") -> None:
    with pytest.raises(RuntimeError), atomic_output(tmp_path / "file") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    writer.communicate("\n")
    assert writer.returncode == 0
    assert names(tmp_path) == ["file"]


@pytest.mark.fault("two writers of one file")
def test_where_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(artefacts.fcntl, "flock", no_locks)
    with atomic_output(tmp_path / "file") as first, atomic_output(tmp_path / "file") as second:
        assert first != second
        first.write_text("first")
        second.write_text("second")
    assert (tmp_path / "file").read_text() == "first"
    assert names(tmp_path) == ["file"]


@pytest.mark.fault("job killed while writing")
def test_half_a_checkpoint_is_removed_by_the_next_run(tmp_path: Path) -> None:
    process = start("atomic_output", tmp_path / "step_000000003_0123456789abcdef.pt")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    whole = write_checkpoint(tmp_path, {"step": 2})
    assert latest_state(tmp_path) == {"step": 2}
    assert names(tmp_path) == [whole.name]
