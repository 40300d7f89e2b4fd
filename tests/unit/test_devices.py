"""Ranks of processes, their devices and how they talk, and what is refused, with the accelerator of
the machine as a test tells it.
"""

import shutil

import pytest
import torch

from particleforge.errors import UserError
from particleforge.training import devices
from particleforge.training.distributed import rank_environment


def pretend(monkeypatch: pytest.MonkeyPatch, kind: str | None, visible: int = 1) -> None:
    """Let torch find ``visible`` accelerators of a kind, or none."""

    def current(*, check_available: bool) -> torch.device | None:
        assert check_available, (
            "a build for CUDA on a machine without a GPU has an accelerator all the same"
        )
        return torch.device(kind) if kind else None

    monkeypatch.setattr(torch.accelerator, "current_accelerator", current)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: visible if kind else 0)


@pytest.mark.parametrize(
    ("kind", "requested", "chosen", "backend"),
    [
        (None, "auto", "cpu", "gloo"),
        (None, "cpu", "cpu", "gloo"),
        ("cuda", "auto", "cuda:1", "cpu:gloo,cuda:nccl"),  # CUDA and ROCm
        ("cuda", "cuda", "cuda:1", "cpu:gloo,cuda:nccl"),
        ("cuda", "cpu", "cpu", "gloo"),
        ("xpu", "auto", "xpu:1", "cpu:gloo,xpu:xccl"),
        ("hpu", "hpu", "hpu:1", "cpu:gloo,hpu:hccl"),
    ],
)
def test_devices_and_their_back_ends(
    monkeypatch: pytest.MonkeyPatch, kind: str | None, requested: str, chosen: str, backend: str
) -> None:
    pretend(monkeypatch, kind, visible=4)
    device = devices.choose_device(requested, local_rank=1, world_size=4)
    assert (str(device), devices.backend_of(device)) == (chosen, backend)


@pytest.mark.parametrize(("visible", "local_rank", "index"), [(4, 3, 3), (1, 3, 0)])
def test_a_rank_takes_its_gpu_also_where_slurm_shows_it_no_other(
    monkeypatch: pytest.MonkeyPatch, visible: int, local_rank: int, index: int
) -> None:
    pretend(monkeypatch, "cuda", visible)
    assert devices.choose_device("auto", local_rank, 4) == torch.device("cuda", index)


def test_apples_gpu_takes_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "mps")
    assert str(devices.choose_device("auto", 0)) == "mps:0"
    assert devices.choose_device("auto", 1, 2).type == "cpu"
    with pytest.raises(
        UserError,
        match=r"^training\.device: mps takes one rank, not 2; use one rank, or set it to cpu$",
    ):
        devices.choose_device("mps", 1, 2)


@pytest.mark.fault("device that is not there")
@pytest.mark.parametrize(
    ("found", "requested"), [(None, "cuda"), ("cuda", "xpu"), ("xpu", "cuda"), (None, "mps")]
)
def test_an_absent_device_is_refused(
    monkeypatch: pytest.MonkeyPatch, found: str | None, requested: str
) -> None:
    pretend(monkeypatch, found)
    line = (
        f"training.device: {requested} is not available on this machine, torch finds"
        f" {found or 'cpu'}; set it to auto or cpu"
    )
    with pytest.raises(UserError, match=f"^{line}$"):
        devices.choose_device(requested, 0)


def test_a_device_becomes_the_current_one(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "set_device_index", used.append)
    devices.use_device(torch.device("cpu"))
    devices.use_device(torch.device("cuda", 2))
    assert used == [torch.device("cuda", 2)]


def test_precision_is_that_of_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, matrix = torch.device("cpu"), torch.ones(2, 2)
    with devices.autocast(cpu, "bf16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
    with devices.autocast(cpu, "fp32"):
        assert (matrix @ matrix).dtype == torch.float32
    monkeypatch.setattr(torch.amp, "is_autocast_available", lambda kind: kind != "mps")
    devices.check_precision(torch.device("mps"), "fp32")
    with pytest.raises(
        UserError, match=r"^training\.precision: bf16 is not available on mps; set it to fp32$"
    ):
        devices.check_precision(torch.device("mps"), "bf16")


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        shutil, "which", lambda name: f"/usr/bin/{name}" if name == "clang++" else None
    )
    devices.check_compiler()
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(
        UserError,
        match=(
            r"^training\.compile: none of g\+\+, clang\+\+ is on PATH; install one, or set it to"
            r" false$"
        ),
    ):
        devices.check_compiler()


def test_rank_comes_from_torchrun_then_srun(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    slurm = {"SLURM_PROCID": "5", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    assert rank_environment() == (0, 1, 0)  # a job step that is no distributed training
    monkeypatch.setenv("MASTER_ADDR", "node1")
    assert rank_environment() == (5, 8, 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert rank_environment() == (1, 2, 0)
