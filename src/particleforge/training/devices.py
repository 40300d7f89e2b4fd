"""Devices: the only place that knows which kinds there are, by way of ``torch.accelerator``.

Inputs -> outputs: ``training.device`` and this process's rank on its node -> a ``torch.device``,
the back end of its collective operations, and the context in which the forward pass runs at the
configured precision.

Kinds: ``cuda`` is NVIDIA's CUDA and AMD's ROCm, as torch names both; ``xpu`` Intel's GPUs, ``hpu``
Intel's Gaudi (through its own package, which torch loads by itself), ``mps`` Apple's GPUs. A build
of torch knows one of them besides the CPU.
"""

import os
import shutil
from contextlib import suppress

import torch

from particleforge.errors import UserError

# kinds on which several ranks can train, and what they talk by
_COLLECTIVES = {"cuda": "nccl", "xpu": "xccl", "hpu": "hccl"}
_COMPILERS = ("g++", "clang++")


def choose_device(requested: str, local_rank: int, world_size: int = 1) -> torch.device:
    """Return the device of this rank.

    One that is asked for but absent, or that ranks cannot share, is a UserError.

    A rank takes the device of its number on the node, or the only one that it sees.
    """
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    found = accelerator.type if accelerator else "cpu"
    if requested not in ("auto", "cpu", found):
        raise UserError(
            f"training.device: {requested} is not available on this machine, torch finds {found};"
            " set it to auto or cpu"
        )
    kind = found if requested == "auto" else requested
    if world_size > 1 and kind not in ("cpu", *_COLLECTIVES):
        if requested != "auto":
            raise UserError(
                f"training.device: {kind} takes one rank, not {world_size}; use one rank, or set it"
                " to cpu"
            )
        kind = "cpu"
    return (
        torch.device("cpu")
        if kind == "cpu"
        else torch.device(kind, local_rank % torch.accelerator.device_count())
    )


def use_device(device: torch.device) -> None:
    """Make a device the current one of this process."""
    if device.type != "cpu":
        torch.accelerator.set_device_index(device)


def backend_of(device: torch.device) -> str:
    """Return ``torch.distributed``'s back end for the device.

    The device's own is for its tensors, gloo for those on the CPU.
    """
    return (
        f"cpu:gloo,{device.type}:{_COLLECTIVES[device.type]}"
        if device.type in _COLLECTIVES
        else "gloo"
    )


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the context of a forward pass at ``training.precision``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def usage(device: torch.device) -> dict[str, float]:
    """Return an accelerator's utilisation (share) and peak memory [GB], as far as it tells them.

    A CPU tells nothing. Utilisation needs NVIDIA's or AMD's management library for Python.
    """
    found: dict[str, float] = {}
    if device.type == "cpu":
        return found
    module = torch.get_device_module(device)
    with suppress(Exception):  # each driver and library has errors of its own; it is only told
        found["gpu_memory_gb"] = module.max_memory_allocated(device) / 1e9
    with suppress(Exception):
        found["gpu_utilisation"] = module.utilization(device) / 100
    return found


def check_precision(device: torch.device, precision: str) -> None:
    """Raise a UserError if the device cannot compute at ``training.precision``."""
    if precision == "bf16" and not torch.amp.is_autocast_available(device.type):
        raise UserError(
            f"training.precision: bf16 is not available on {device.type}; set it to fp32"
        )


def check_compiler() -> None:
    """Raise a UserError if ``training.compile`` finds no compiler."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX") or "g++", *_COMPILERS)):
        raise UserError(
            f"training.compile: none of {', '.join(_COMPILERS)} is on PATH; install one, or set it"
            " to false"
        )
