"""Momentum of a particle relative to the element that hosts it, in both directions.

Inputs -> outputs: raw features of a host element + four corrections <-> px, py, pz in GeV, and with
a mass the energy.

The four corrections are log(pT / pT_host), eta - eta_host, sin and cos of phi - phi_host, the last
minus one, each divided by ``SCALES`` so that typical corrections of clusters are of order one and
the loss sees angles. Zero corrections are therefore the host's own momentum: (pt, eta, phi) of a
track, (et, eta, phi) of a cluster. That angles enter through sine and cosine avoids the seam at
+-pi; decoding rotates the host's (cos phi, sin phi), so that no angle is ever formed.

The energy follows from momentum and mass, so that every particle has the mass of its class.
"""

import torch
from torch import Tensor

N_CORRECTIONS = 4
SCALES = (0.3, 0.05, 0.05, 0.05)
ZERO = (0.0, 0.0, 0.0, 1.0)  # corrections of a particle that has its host's momentum
_SMALLEST_GEV = 1e-6
_LOG_RATIO_MAX = 10.0
_ABS_ETA_MAX = 12.0


def host_momentum(features: Tensor, columns: Tensor) -> tuple[Tensor, ...]:
    """Return pt, energy (GeV), eta, sin(phi), cos(phi) of the hosts, each [B, N].

    ``features``: raw [B, N, F]; ``columns``: int64 [B, N, 5], where each quantity is found
    (``schema.HOST_FEATURES``).
    """
    pt, energy, eta, sin_phi, cos_phi = features.gather(-1, columns).unbind(-1)
    return pt.clamp(min=_SMALLEST_GEV), energy.clamp(min=_SMALLEST_GEV), eta, sin_phi, cos_phi


def to_corrections(p4: Tensor, host: tuple[Tensor, ...]) -> Tensor:
    """Return the corrections [B, N, 4] that turn the hosts into particles of momentum ``p4``.

    ``p4`` is [B, N, 4] in GeV, of which the energy does not count.
    """
    px, py, pz, _ = p4.unbind(-1)
    host_pt, _, host_eta, host_sin, host_cos = host
    # not hypot, which the ONNX exporter does not know
    pt = (px * px + py * py).clamp(min=_SMALLEST_GEV**2).sqrt()
    sin_phi, cos_phi = py / pt, px / pt
    corrections = (
        (pt / host_pt).log(),
        torch.asinh(pz / pt) - host_eta,
        sin_phi * host_cos - cos_phi * host_sin,
        cos_phi * host_cos + sin_phi * host_sin,
    )
    return (torch.stack(corrections, -1) - p4.new_tensor(ZERO)) / p4.new_tensor(SCALES)


def to_p4(corrections: Tensor, host: tuple[Tensor, ...], mass: Tensor) -> Tensor:
    """Return px, py, pz, energy [B, N, 4] in GeV that the corrections make of the hosts.

    The corrections are [B, N, 4], ``mass`` [B, N] in GeV.
    """
    host_pt, _, host_eta, host_sin, host_cos = host
    parts = [
        correction * scale + zero
        for correction, scale, zero in zip(corrections.unbind(-1), SCALES, ZERO, strict=True)
    ]
    log_pt, d_eta, sin_d_phi, cos_d_phi = parts
    norm = torch.sqrt(sin_d_phi * sin_d_phi + cos_d_phi * cos_d_phi).clamp(min=1e-6)
    pt = host_pt * log_pt.clamp(-_LOG_RATIO_MAX, _LOG_RATIO_MAX).exp()
    px = pt * (host_cos * cos_d_phi - host_sin * sin_d_phi) / norm
    py = pt * (host_sin * cos_d_phi + host_cos * sin_d_phi) / norm
    pz = pt * torch.sinh((host_eta + d_eta).clamp(-_ABS_ETA_MAX, _ABS_ETA_MAX))
    # padding has no momentum, and the root no finite gradient at 0
    squared = (px * px + py * py + pz * pz).clamp(min=_SMALLEST_GEV**2)
    return torch.stack((px, py, pz, torch.sqrt(squared + mass * mass)), -1)
