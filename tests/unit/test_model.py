"""The network: what an event's output may depend on, and what its outputs mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.model import ModelConfig
from particleforge.errors import UserError
from particleforge.model.curve import inverse
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import TERMS, Batch, loss_sums
from particleforge.model.momentum import host_momentum, to_corrections, to_p4
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.saved import load_model, save_model, serialise
from particleforge.tables.schema import N_SHARES

from .synthetic_shards import (
    N_FEATURES,
    random_elements,
    random_network,
    random_shares,
    write_synthetic,
)

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ModelInputs:
    return ModelInputs.from_manifest(
        write_synthetic(tmp_path_factory.mktemp("shards"), train=(1,), valid=1, test=1)
    )


@pytest.fixture(scope="module")
def decoder(inputs: ModelInputs) -> Decoder:
    return Decoder(random_network(inputs, ModelConfig(width=16, n_layers=2, n_heads=2)))


def make_batch(lengths: list[int], seed: int = 0, padding: int = 0) -> Batch:
    """Return random events padded to the longest plus ``padding``.

    Values in padding are noise that must not matter.
    """
    rng = np.random.default_rng(seed)
    shape = (len(lengths), max([*lengths, 0]) + padding)
    features = rng.normal(0, 5, (*shape, N_FEATURES)).astype(np.float32)
    p4 = rng.normal(0, 5, (*shape, 4)).astype(np.float32)
    types, classes, charges = (np.zeros(shape, np.int64) for _ in range(3))
    hosts, shares = np.full((*shape, N_SHARES), -1), np.zeros((*shape, N_SHARES + 1), np.float32)
    for row, n in enumerate(lengths):
        own = np.random.default_rng((seed, row))
        event = random_elements(own, n)
        types[row, :n], features[row, :n], classes[row, :n], charges[row, :n], p4[row, :n] = event
        hosts[row, :n], shares[row, :n] = random_shares(own, event[0], np.array([n]))
    columns = (features, types, classes, charges, p4, hosts, shares, features[..., :0])
    return Batch(*(torch.from_numpy(a) for a in columns))


def reordered(batch: Batch, order: torch.Tensor) -> Batch:
    """Return the batch with the elements of all events in another order."""
    found = Batch(*(column[:, order] for column in batch))
    host = found.share_host
    return found._replace(share_host=torch.where(host < 0, host, inverse(order[None])[0][host]))


@torch.no_grad()
def decoded(decoder: Decoder, batch: Batch) -> tuple[torch.Tensor, ...]:
    scores, charge, p4, weight = decoder(batch.features, batch.element_type)
    return scores, charge, p4 / p4[..., 3:].clamp(min=1e-3), weight


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=5),
    padding=st.integers(0, 30),
    seed=st.integers(0, 1000),
)
def test_event_depends_on_neither_padding_nor_batch_mates(
    decoder: Decoder, lengths: list[int], padding: int, seed: int
) -> None:
    together = decoded(decoder, make_batch(lengths, seed, padding))
    for row, n in enumerate(lengths):
        batch = make_batch(lengths, seed)
        alone = decoded(decoder, Batch(*(column[row : row + 1, :n] for column in batch)))
        for one, all_ in zip(alone, together, strict=True):
            assert (
                (one[0] - all_[row, :n]).abs().amax().item() <= TOLERANCE
                if n
                else one.shape[1] == 0
            )


@settings(max_examples=10, deadline=None)
@given(n=st.integers(2, 50), seed=st.integers(0, 1000))
def test_order_of_elements_permutes_the_output(decoder: Decoder, n: int, seed: int) -> None:
    batch = make_batch([n], seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    straight = decoded(decoder, batch)
    permuted = decoded(decoder, reordered(batch, order))
    for one, other in zip(straight, permuted, strict=True):
        assert (one[:, order] - other).abs().amax() <= TOLERANCE


def test_an_element_depends_on_the_others_of_its_event(decoder: Decoder) -> None:
    batch = make_batch([10])
    whole = decoded(decoder, batch)[0]
    part = decoded(decoder, Batch(*(column[:, :5] for column in batch)))[0]
    assert (whole[:, :5] - part).abs().amax() > 1e-3


def test_padding_is_decoded_to_nothing(decoder: Decoder) -> None:
    batch = make_batch([3, 0], padding=2)
    with torch.no_grad():
        scores, charge, p4, weight = decoder(batch.features, batch.element_type)
    padding = batch.element_type == 0
    assert torch.equal(scores[padding], torch.eye(4)[:1].expand(int(padding.sum()), 4))
    assert not charge[padding].any()
    assert not p4[padding].any()
    assert not weight[padding].any()
    assert all(output.isfinite().all() for output in (scores, p4, weight))


def test_scores_are_probabilities_and_charge_follows_class(decoder: Decoder) -> None:
    batch = make_batch([60, 60])
    with torch.no_grad():
        scores, charge, p4, weight = decoder(batch.features, batch.element_type)
    assert torch.allclose(scores.sum(-1), torch.ones(2, 60))
    presence = 1 - scores[..., 0]
    is_track = batch.element_type == 1
    assert torch.allclose(weight[~is_track], presence[~is_track], atol=1e-6)
    hidden = (weight / presence)[is_track].log()
    assert hidden.abs().max() <= 1 + 1e-4
    assert hidden.abs().max() > 1e-3, "tracks hide energy"
    is_charged = scores[..., 1:].argmax(-1) == 0  # the first class is the charged one
    assert is_charged.any()
    assert torch.equal(charge != 0, is_charged)
    assert (p4[..., 3] >= p4[..., :3].norm(dim=-1) * (1 - 1e-6)).all()


def test_untrained_network_answers_with_the_track(inputs: ModelInputs) -> None:
    decoder = Decoder(
        ParticleFlowNetwork(ModelConfig(width=8, n_layers=1, n_heads=1), inputs).eval()
    )
    batch = make_batch([40])
    with torch.no_grad():
        p4 = decoder(batch.features, batch.element_type)[2]
    pt, eta, sin_phi, cos_phi = (batch.features[0, :, i] for i in range(4))
    expected = torch.stack((pt * cos_phi, pt * sin_phi, pt * torch.sinh(eta)), -1)
    is_track = batch.element_type[0] == 1
    # a mixing that is all but closed
    assert torch.allclose(p4[0, is_track, :3], expected[is_track], rtol=3e-3)


def test_a_track_mixes_with_the_calorimeter_where_the_network_says_so(inputs: ModelInputs) -> None:
    """Momentum goes all the way to the energy received, and can begin to."""
    network = ParticleFlowNetwork(ModelConfig(width=8, n_layers=1, n_heads=1), inputs).eval()
    batch = make_batch([40])
    is_track = batch.element_type == 1
    energy = batch.features[..., 4]
    seen = network.look(batch.features, batch.element_type)
    outputs = network(batch.features, batch.element_type)
    assert outputs.momentum[is_track].abs().max() < 0.01
    outputs.momentum[is_track].sum().backward()
    assert network.mixed.weight.grad.abs().sum() > 0
    torch.nn.init.constant_(network.mixed.bias, 20.0)
    for share_alike in (network.shares.own, network.shares.range):
        torch.nn.init.zeros_(share_alike)
    with torch.no_grad():
        x = network.encode(batch.features, seen)
        for block in network.blocks:
            x = block(x, network.prepare(network.config, seen.geometry))
        log_ratio = network.answer(x, seen).momentum[..., 0] * 0.3
        _, _, p4, _ = Decoder(network)(batch.features, batch.element_type)
    inside = is_track & (log_ratio.abs() < 0.99)
    found = p4[..., :3].norm(dim=-1)
    assert inside.any()
    assert torch.allclose(found[inside], (energy * log_ratio.exp())[inside], rtol=1e-4)
    assert (log_ratio[is_track].abs() <= 1 + 1e-6).all()


def test_particles_have_the_mass_of_their_class(decoder: Decoder) -> None:
    batch = make_batch([60])
    with torch.no_grad():
        found = decoder(batch.features, batch.element_type)
    scores, p4 = found[0], found[2].double()
    mass = torch.tensor([0.13957, 0.49761, 0.0]).double()[scores[..., 1:].argmax(-1)]
    energy = (p4[..., :3].square().sum(-1) + mass.square()).sqrt()
    assert torch.allclose(p4[..., 3], energy, rtol=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_momentum_corrections_invert(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pt = rng.exponential(5, 50) + 0.1
    eta = rng.uniform(-4, 4, 50)
    phi = rng.uniform(-np.pi, np.pi, 50)
    energy = np.hypot(pt * np.cosh(eta), 0.14)
    p4 = torch.tensor(
        np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(eta), energy], -1)
    )[None]
    turned = phi + rng.uniform(-3, 3, 50)
    host = tuple(
        torch.tensor(v)[None]
        for v in (pt * 1.3, energy * 0.7, eta + 0.2, np.sin(turned), np.cos(turned))
    )
    mass = torch.full_like(p4[..., 0], 0.14)
    assert torch.allclose(to_p4(to_corrections(p4, host), host, mass), p4, rtol=1e-6, atol=1e-9)


def true_log_shares(batch: Batch) -> torch.Tensor:
    """Return the outputs of a network without windows that deals all energy out rightly."""
    sink = batch.share_host.shape[-1]
    n_elements = batch.share_host.shape[1]
    host = torch.where(batch.share_host < 0, n_elements, batch.share_host)
    share = torch.zeros(*host.shape[:2], n_elements + 1)
    share.scatter_add_(-1, host, batch.share[..., :sink])
    share[..., -1] += batch.share[..., sink]
    return share.clamp(min=1e-9).log()


def test_loss_of_perfect_outputs_is_zero_and_each_term_sees_its_output(inputs: ModelInputs) -> None:
    network = ParticleFlowNetwork(ModelConfig(width=8, n_layers=1, n_heads=1), inputs)
    batch = make_batch([30], padding=3)
    outputs = network(batch.features, batch.element_type)
    particle = batch.target_class > 0
    perfect = outputs._replace(
        presence=torch.where(particle, 50.0, -50.0),
        classes=torch.nn.functional.one_hot((batch.target_class - 1).clamp(min=0), 3) * 50.0,
        charge=torch.nn.functional.one_hot(batch.target_charge + 1, 3) * 50.0,
        momentum=to_corrections(
            batch.target_p4, host_momentum(batch.features, network.host_columns[batch.element_type])
        ),
        mass=torch.zeros_like(outputs.mass),  # as the synthetic particles have
        log_hidden=torch.zeros_like(outputs.log_hidden),
        log_share=true_log_shares(batch),
    )
    assert loss_sums(perfect, batch, network.host_columns).abs().max() < 1e-5
    wrong = {
        "presence": -perfect.presence,
        "classes": -perfect.classes,
        "charge": -perfect.charge,
        "momentum": perfect.momentum + 1,
        "log_share": outputs.log_share,
    }
    sum_of_all = TERMS.index("event")
    seen = [TERMS.index(n) for n in TERMS if n not in ("event", "uncertainty")]
    for term, (name, value) in zip(seen, wrong.items(), strict=True):
        sums = loss_sums(perfect._replace(**{name: value}), batch, network.host_columns)
        # the event as a whole sees presence and momentum, too
        others = sums[seen].sum() - sums[term]
        assert sums[term] > 1
        assert others < 1e-5
        assert bool(sums[sum_of_all] > 1e-3) == (name in ("presence", "momentum"))


def test_saved_model_loads_and_gives_the_same(
    decoder: Decoder, inputs: ModelInputs, tmp_path: Path
) -> None:
    network = decoder.network
    content = {
        "weights": network.state_dict(),
        "model": network.config.model_dump(mode="json"),
        "inputs": inputs.plain(),
        "step": 5,
    }
    save_model(tmp_path / "best.pt", content)
    loaded, meta = load_model(tmp_path / "best.pt")
    batch = make_batch([9])
    assert meta["step"] == 5
    assert torch.equal(
        loaded(batch.features, batch.element_type).classes,
        network(batch.features, batch.element_type).classes,
    )
    (tmp_path / "broken.pt").write_bytes((tmp_path / "best.pt").read_bytes()[:-200])
    with pytest.raises(UserError, match=r"broken\.pt: not a model"):
        load_model(tmp_path / "broken.pt")
    (tmp_path / "old.pt").write_bytes(serialise(content))
    with pytest.raises(UserError, match=r"old\.pt: a model of format 1, .*; train it again"):
        load_model(tmp_path / "old.pt")


def test_bad_manifests_are_named(tmp_path: Path) -> None:
    manifest = write_synthetic(tmp_path, train=(1,), valid=1, test=1)
    text = manifest.read_text()
    manifest.write_text(text.replace('"schema_version": 1', '"schema_version": 99'))
    with pytest.raises(UserError, match="schema version 99"):
        ModelInputs.from_manifest(manifest)
    manifest.write_text(text.replace('"sin_phi"', '"sine_phi"'))
    with pytest.raises(UserError, match=r"elements\.track lacks sin_phi"):
        ModelInputs.from_manifest(manifest)
