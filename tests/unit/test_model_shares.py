"""Shares of energy: nothing is lost, windows deal as full attention does, the loss sees hosts."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.model import ModelConfig
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import TERMS, Batch, loss_sums
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.shares import Dealt
from particleforge.model.surroundings import N_SURROUNDINGS, surroundings

from .synthetic_shards import write_synthetic
from .test_model import make_batch

BACKBONES = ("attention", "windowed_attention", "gnn_lsh")
SMALL = {"width": 16, "n_layers": 1, "n_heads": 2, "window_elements": 8}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ModelInputs:
    folder: Path = tmp_path_factory.mktemp("shards")
    return ModelInputs.from_manifest(write_synthetic(folder, train=(1,), valid=1, test=1))


def network_of(inputs: ModelInputs, backbone: str, spread: float = 0.5) -> ParticleFlowNetwork:
    """Return a network whose shares differ much from cluster to cluster."""
    torch.manual_seed(0)
    network = ParticleFlowNetwork(ModelConfig(backbone=backbone, **SMALL), inputs).eval()
    for part in (network.shares.query, network.shares.key, network.shares.sink):
        torch.nn.init.normal_(part.weight, std=spread)
    return network


@torch.no_grad()
def dealt(network: ParticleFlowNetwork, batch: Batch) -> tuple[Dealt, torch.Tensor, torch.Tensor]:
    """Return how energy was dealt out, and the energies and directions of clusters."""
    seen = network.look(batch.features, batch.element_type)
    x = network.encode(batch.features, seen)
    is_cluster = batch.element_type == 2
    _, _, eta, sin_phi, cos_phi = seen.host
    direction = torch.stack((cos_phi, sin_phi, eta.sinh()), -1) / eta.cosh().unsqueeze(-1)
    found = network.shares(x, seen.geometry, direction, is_cluster, seen.reach)
    return found, torch.where(is_cluster, seen.host[1], 0.0), direction


@pytest.mark.parametrize("backbone", BACKBONES)
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(0, 40), min_size=1, max_size=4), seed=st.integers(0, 99))
def test_energy_is_conserved(
    inputs: ModelInputs, backbone: str, lengths: list[int], seed: int
) -> None:
    batch = make_batch(lengths, seed, padding=3)
    found, energy, direction = dealt(network_of(inputs, backbone), batch)
    dropped = (energy * found.log_share[..., -1].exp()).sum(-1)
    assert torch.allclose(found.received[..., 3].sum(-1) + dropped, energy.sum(-1), rtol=1e-4)
    kept = (energy * (1 - found.log_share[..., -1].exp())).unsqueeze(-1)
    momentum = (kept * direction).sum(1)
    tolerance = 1e-4 * (1 + energy.sum().item())
    assert torch.allclose(found.received[..., :3].sum(1), momentum, atol=tolerance)
    assert not found.received[batch.element_type == 0].any(), "padding receives nothing"


@pytest.mark.parametrize("backbone", ["windowed_attention", "gnn_lsh"])
def test_hosts_receive_from_all_windows_that_reach_them(inputs: ModelInputs, backbone: str) -> None:
    """What arrives is the sum over clusters of energy times the share that the output names."""
    network, batch = network_of(inputs, backbone), make_batch([61, 17])
    found, energy, _ = dealt(network, batch)
    outputs = network(batch.features, batch.element_type)
    n_reached = outputs.log_share.shape[-1] - 1
    assert n_reached == 24
    received = torch.zeros_like(energy)
    for event, n in enumerate((61, 17)):
        for cluster in range(n):
            for host in range(n):
                slot = outputs.place[event, host] - outputs.first[event, cluster]
                if 0 <= slot < n_reached:
                    share = found.log_share[event, cluster, slot].exp()
                    received[event, host] += energy[event, cluster] * share
    assert torch.allclose(received, found.received[..., 3], rtol=1e-4, atol=1e-4)


def test_an_untrained_cluster_keeps_most_of_its_energy(inputs: ModelInputs) -> None:
    torch.manual_seed(0)
    network = ParticleFlowNetwork(ModelConfig(**SMALL), inputs).eval()
    batch = make_batch([40])
    found, energy, _ = dealt(network, batch)
    own = (energy * found.told[..., 2])[batch.element_type == 2].sum()
    assert own > 0.7 * energy.sum()


def test_hosts_out_of_reach_count_as_no_host(inputs: ModelInputs) -> None:
    network, batch = network_of(inputs, "windowed_attention"), make_batch([64])
    with torch.no_grad():
        outputs = network(batch.features, batch.element_type)
    order = outputs.place[0].argsort()
    cluster = next(int(e) for e in order if batch.element_type[0, e] == 2)
    far, near = int(order[-1]), int(order[7])

    def divergence(host: int) -> float:
        hosts, share = torch.full_like(batch.share_host, -1), torch.zeros_like(batch.share)
        hosts[0, cluster, 0], share[0, cluster, 0] = host, 1.0
        known = batch._replace(share_host=hosts, share=share)
        sums = loss_sums(outputs, known, network.host_columns)
        return float(sums[TERMS.index("shares")] / batch.features[0, cluster, 4].sqrt())

    slot = int(outputs.place[0, near] - outputs.first[0, cluster])
    found = outputs.log_share[0, cluster]
    assert divergence(near) == pytest.approx(-found[slot].item(), rel=1e-4)
    assert divergence(far) == pytest.approx(-found[-1].item(), rel=1e-4)


def test_surroundings_are_sums_over_distance(inputs: ModelInputs) -> None:
    """A track of 4 GeV and a cluster of 10 GeV in one place, and a cluster of 6 GeV far away."""
    network = ParticleFlowNetwork(ModelConfig(**SMALL), inputs)
    features = torch.zeros(1, 4, inputs.n_features)
    features[..., 3] = features[..., 9] = 1.0  # cos phi
    features[0, 0, [0, 4]], features[0, 1, [0, 4]], features[0, 2, [0, 4]] = 4.0, 10.0, 6.0
    features[0, 2, 3] = -1.0
    types = torch.tensor([[1, 2, 2, 0]])
    seen = network.look(features, types)
    found = surroundings(seen.geometry, types == 1, seen.reach)
    assert found.shape == (1, 4, N_SURROUNDINGS)
    for scale in range(3):
        logs = 2 * found[0, :3, 4 * scale : 4 * scale + 2]  # of the tracks, of the calorimeter
        sums = torch.tensor([[4.05, 10.05], [4.05, 10.05], [0.05, 6.05]])
        assert torch.allclose(logs.exp(), sums, rtol=1e-3)
        difference = 2 * found[0, :3, 4 * scale + 3]
        assert torch.allclose(difference.sinh(), torch.tensor([6.0, 6.0, 6.0]), rtol=1e-3)
