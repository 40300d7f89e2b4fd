"""A full or read-only disk: one line that names the file, nothing half-written, and the undisturbed
result once there is room.
"""

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from particleforge.artefacts import atomic_output, write_json
from particleforge.config.dataset import DatasetConfig
from particleforge.config.settings import TrainSettings
from particleforge.dataset.build import build_dataset
from particleforge.edm4hep.rootfile import EventFile
from particleforge.errors import UserError
from particleforge.hpo.study import open_study
from particleforge.logs import one_line_errors
from particleforge.preprocessing.shards import write_shards
from particleforge.selection.select import select_events
from particleforge.simulation.simulate import simulate_events
from particleforge.training.checkpoint import list_checkpoints, read_checkpoint, write_checkpoint
from particleforge.training.spec import TrainingResult, TrainingSpec
from particleforge.training.train import train_model

from ..unit.dataset_settings import NO_LIMITS, dataset_settings
from ..unit.edm4hep_events import random_event, write_events
from ..unit.hpo_fixtures import FormulaTraining, Search, loss_at
from ..unit.hpo_fixtures import make_settings as make_hpo_settings
from ..unit.simulation_fixtures import make_settings
from ..unit.synthetic import synthetic_events, write_dataset
from ..unit.synthetic_shards import write_synthetic
from ..unit.test_preprocessing import stage_settings as shard_settings
from ..unit.test_preprocessing import write_selected
from ..unit.test_selection import stage_settings as select_settings
from .disk import Disk

Stage = Callable[[Path], None]
MakeDisk = Callable[[int], Disk]
PAGE_KIB = 4  # what a file takes at least


def simulate(folder: Path) -> Stage:
    settings = make_settings(events_per_shard=2)
    return lambda output: simulate_events(settings, "00000", output / "sim/00000.root")


def dataset(folder: Path) -> Stage:
    rng = np.random.default_rng(3)
    write_events(folder / "in.root", [random_event(rng, 20, 10, 10, 10) for _ in range(200)])
    settings = dataset_settings(dataset=DatasetConfig(**NO_LIMITS))
    return lambda output: build_dataset(
        settings, [folder / "in.root"], output / "dataset/00000.parquet"
    )


def select(folder: Path) -> Stage:
    source = write_dataset(folder / "in.parquet", synthetic_events(400, 1))
    return lambda output: select_events(
        select_settings(),
        dataset=source,
        output=output / "select/00000.parquet",
        cutflow=output / "select/00000.json",
    )


def shards(folder: Path) -> Stage:
    source = write_selected(folder / "in.parquet", synthetic_events(400, 2))
    return lambda output: write_shards(shard_settings(100), [source], output / "shards")


STAGES = {"simulate": simulate, "dataset": dataset, "select": select, "shards": shards}


def reproducible(files: dict[str, bytes]) -> dict[str, bytes]:
    """Leave out what says when and where a file was made."""
    return {
        name: content for name, content in files.items() if not name.endswith(".provenance.json")
    }


@pytest.fixture(scope="module", params=STAGES)
def stage(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Stage, dict[str, bytes]]:
    """Return a stage, as a function of the folder to write to, and the files that it makes
    undisturbed.
    """
    folder = tmp_path_factory.mktemp(request.param)
    run = STAGES[request.param](folder)
    run(folder / "whole")
    files = (path for path in (folder / "whole").rglob("*") if path.is_file())
    return run, reproducible(
        {str(path.relative_to(folder / "whole")): path.read_bytes() for path in files}
    )


@pytest.mark.fault("full disk")
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_full_disk(
    stage: tuple[Stage, dict[str, bytes]], make_disk: MakeDisk, share: float
) -> None:
    run, whole = stage
    disk = make_disk(max(PAGE_KIB, int(share * sum(map(len, whole.values())) / 1024)))
    with pytest.raises(
        UserError,
        match="the disk is full; free space on it, or put the results elsewhere, then run again",
    ) as raised:
        run(disk.path)
    assert str(raised.value).startswith(str(disk.path))
    assert ".tmp" not in str(raised.value)
    assert reproducible(disk.files()).items() <= whole.items()
    disk.remount("size=64m")
    run(disk.path)
    assert reproducible(disk.files()) == whole


@pytest.mark.fault("read-only results")
def test_read_only_results(stage: tuple[Stage, dict[str, bytes]], make_disk: MakeDisk) -> None:
    run, whole = stage
    disk = make_disk(64 * 1024)
    run(disk.path)
    disk.remount("ro")
    with pytest.raises(
        UserError,
        match="the file system is read-only; mount it writable, or put the results elsewhere",
    ):
        run(disk.path)
    assert reproducible(disk.files()) == whole
    disk.remount("rw")
    run(disk.path)
    assert reproducible(disk.files()) == whole


@pytest.fixture
def forbidden() -> Iterator[Path]:
    """Return a folder in which this process, no longer root if it was, may not write."""
    folder = Path(tempfile.mkdtemp())  # pytest's own are closed to other users
    folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    yield folder
    os.seteuid(user)
    folder.rmdir()


@pytest.mark.fault("no permission to write")
def test_no_permission_to_write(forbidden: Path) -> None:
    for path in (forbidden / "file.json", forbidden / "folder" / "file.json"):
        with pytest.raises(
            UserError, match="permission denied; correct owner or mode of the file and its folder"
        ) as raised:
            write_json(path, {})
        assert str(forbidden) in str(raised.value)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [(errno.EDQUOT, "the disk quota is used up"), (errno.ENOSPC, "the disk is full")],
)
def test_what_the_user_can_mend_is_one_line(tmp_path: Path, code: int, meaning: str) -> None:
    with (
        pytest.raises(SystemExit, match=f"^error: {tmp_path}/file: {meaning}; "),
        one_line_errors(),
        atomic_output(tmp_path / "file"),
    ):
        raise OSError(code, "said by the system")
    with (
        pytest.raises(SystemExit, match=f"^error: a file of this job: {meaning}; "),
        one_line_errors(),
    ):
        raise OSError(code, "said by the system")


@pytest.mark.fault("failing disk or file server")
def test_a_failing_disk_is_not_a_bad_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were it taken for one, a moment's trouble of the file server would quarantine good files."""
    write_events(
        tmp_path / "in.root",
        [random_event(np.random.default_rng(3), 10, 3, 3, 3) for _ in range(4)],
    )
    settings = dataset_settings(dataset=DatasetConfig(on_bad_file="quarantine"))

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    for method in ("_event_numbers", "jagged"):  # while the file is opened, while events are read
        with (
            monkeypatch.context() as patch,
            pytest.raises(OSError, match="Input/output error"),
            one_line_errors(),
        ):
            patch.setattr(EventFile, method, fail)
            build_dataset(settings, [tmp_path / "in.root"], tmp_path / "out.parquet")
    assert [path.name for path in tmp_path.iterdir()] == ["in.root"]


@pytest.mark.fault("full disk")
def test_full_disk_while_a_checkpoint_is_written(make_disk: MakeDisk) -> None:
    states = [{"step": step, "weights": torch.full((5000,), float(step))} for step in (1, 2)]
    disk = make_disk(36)  # room for one, not for two
    first = write_checkpoint(disk.path, states[0])
    with pytest.raises(UserError, match=r"step_000000002_\w+\.pt: the disk is full"):
        write_checkpoint(disk.path, states[1])
    assert list(disk.path.iterdir()) == [first]
    assert read_checkpoint(first)["step"] == 1
    disk.remount("size=1m")
    write_checkpoint(disk.path, states[1])
    assert [read_checkpoint(path)["step"] for path in list_checkpoints(disk.path)] == [1, 2]


class WithoutFiles(FormulaTraining):
    """A training that writes nothing, so that the study is what meets the full disk."""

    def __call__(self, spec: TrainingSpec, ranks: int) -> TrainingResult:
        step, chosen = spec.until_step, spec.settings
        return self._result(
            spec,
            "complete",
            "",
            step,
            {step: loss_at(chosen.training.learning_rate, chosen.model.n_layers, step)},
            None,
        )


@pytest.mark.fault("full disk")
def test_full_disk_at_every_write_of_a_search(tmp_path: Path, make_disk: MakeDisk) -> None:
    """The disk grows page by page, each time by less than the next slot needs."""
    settings = make_hpo_settings(first_rung_slots=8, n_rungs=1, min_steps=2)
    whole = Search(tmp_path / "whole", settings, WithoutFiles())
    expected = whole.run_all()
    size_kib, messages = 2 * PAGE_KIB, []
    disk = make_disk(size_kib)
    search, results = Search(disk.path / "search", settings, WithoutFiles()), []
    while len(results) < len(expected):
        try:
            results.append(search.run(0, len(results)))
        except UserError as error:
            messages.append(str(error))
            size_kib += PAGE_KIB
            disk.remount(f"size={size_kib}k")
    assert results == expected
    assert all(": the disk is full; " in message for message in messages)
    assert {message.split(":")[0] for message in messages} >= {
        str(search.work),
        str(search.output(0, 0)),
    }
    assert len(open_study(settings, search.manifest, search.work).trials()) == len(expected)


@pytest.mark.integration
@pytest.mark.fault("full disk")
def test_full_disk_during_a_training(tmp_path: Path, make_disk: MakeDisk) -> None:
    steps = {
        "max_steps": 16,
        "valid_every_steps": 4,
        "checkpoint_every_steps": 4,
        "log_every_steps": 1,
        "warmup_steps": 2,
    }
    model = {"width": 8, "n_layers": 1, "n_heads": 2}
    settings = TrainSettings(
        seed=4, model=model, training={**steps, "elements_per_batch": 256, "device": "cpu"}
    )
    manifest = write_synthetic(tmp_path / "shards")

    def train(folder: Path) -> None:
        train_model(
            settings,
            manifest=manifest,
            best_settings=None,
            work_dir=folder / "work",
            model=folder / "best.pt",
            last=folder / "last.pt",
            metrics=folder / "metrics.parquet",
            tensorboard=folder / "tensorboard",
        )

    train(tmp_path / "whole")
    disk = make_disk(1024)
    checkpoint = (tmp_path / "whole/last.pt").stat().st_size
    # nothing; one checkpoint and not two; the two that are kept and a third while it is written
    for size, place in (
        (8 * 1024, "work"),
        (1.6 * checkpoint, "checkpoints/step_000000008"),
        (3.75 * checkpoint, "last.pt"),
    ):
        disk.remount(f"size={size:.0f}")
        with pytest.raises(UserError, match=rf"{place}.*: the disk is full"):
            train(disk.path)
    assert [
        read_checkpoint(path)["step"] for path in list_checkpoints(disk.path / "work/checkpoints")
    ] == [12, 16]
    disk.remount("size=1m")
    train(disk.path)
    for name in ("best.pt", "last.pt"):
        assert (disk.path / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not [name for name in disk.files() if name.endswith(".tmp")]
