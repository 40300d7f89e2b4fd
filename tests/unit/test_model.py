"""The network: what an event's output may depend on, and what its outputs mean."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from particleforge.config.model import ModelConfig
from particleforge.errors import UserError
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import Batch, loss_sums
from particleforge.model.momentum import to_corrections, to_p4
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.saved import load_model, save_model, serialise

from .synthetic_shards import N_FEATURES, random_elements, random_network, write_synthetic

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
    for row, n in enumerate(lengths):
        event = random_elements(np.random.default_rng((seed, row)), n)
        types[row, :n], features[row, :n], classes[row, :n], charges[row, :n], p4[row, :n] = event
    return Batch(*(torch.from_numpy(a) for a in (features, types, classes, charges, p4)))


@torch.no_grad()
def decoded(decoder: Decoder, batch: Batch) -> tuple[torch.Tensor, ...]:
    scores, charge, p4 = decoder(batch.features, batch.element_type)
    return scores, charge, p4 / p4[..., 3:].clamp(min=1e-3)


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
    permuted = decoded(decoder, Batch(*(column[:, order] for column in batch)))
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
        scores, charge, p4 = decoder(batch.features, batch.element_type)
    padding = batch.element_type == 0
    assert torch.equal(scores[padding], torch.eye(4)[:1].expand(int(padding.sum()), 4))
    assert not charge[padding].any()
    assert not p4[padding].any()
    assert all(output.isfinite().all() for output in (scores, p4))


def test_scores_are_probabilities_and_charge_follows_class(decoder: Decoder) -> None:
    batch = make_batch([60, 60])
    with torch.no_grad():
        scores, charge, p4 = decoder(batch.features, batch.element_type)
    assert torch.allclose(scores.sum(-1), torch.ones(2, 60))
    is_charged = scores[..., 1:].argmax(-1) == 0  # the first class is the charged one
    assert is_charged.any()
    assert torch.equal(charge != 0, is_charged)
    assert (p4[..., 3] >= p4[..., :3].norm(dim=-1) * (1 - 1e-6)).all()


def test_untrained_network_answers_with_the_host(inputs: ModelInputs) -> None:
    decoder = Decoder(
        ParticleFlowNetwork(ModelConfig(width=8, n_layers=1, n_heads=1), inputs).eval()
    )
    batch = make_batch([40])
    with torch.no_grad():
        _, _, p4 = decoder(batch.features, batch.element_type)
    pt, eta, sin_phi, cos_phi, energy = (batch.features[0, :, i] for i in range(5))
    expected = torch.stack((pt * cos_phi, pt * sin_phi, pt * torch.sinh(eta), energy), -1)
    assert torch.allclose(p4[0], expected, rtol=1e-5, atol=1e-5)


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
    assert torch.allclose(to_p4(to_corrections(p4, host), host), p4, rtol=1e-6, atol=1e-9)


def test_loss_of_perfect_outputs_is_zero_and_each_term_sees_its_output(inputs: ModelInputs) -> None:
    network = ParticleFlowNetwork(ModelConfig(width=8, n_layers=1, n_heads=1), inputs)
    batch = make_batch([30], padding=3)
    outputs = network(batch.features, batch.element_type)
    from particleforge.model.momentum import host_momentum

    particle = batch.target_class > 0
    perfect = outputs._replace(
        presence=torch.where(particle, 50.0, -50.0),
        classes=torch.nn.functional.one_hot((batch.target_class - 1).clamp(min=0), 3) * 50.0,
        charge=torch.nn.functional.one_hot(batch.target_charge + 1, 3) * 50.0,
        momentum=to_corrections(
            batch.target_p4, host_momentum(batch.features, network.host_columns[batch.element_type])
        ),
    )
    assert loss_sums(perfect, batch, network.host_columns).abs().max() < 1e-5
    wrong = {
        "presence": -perfect.presence,
        "classes": -perfect.classes,
        "charge": -perfect.charge,
        "momentum": perfect.momentum + 1,
    }
    for term, (name, value) in enumerate(wrong.items()):
        sums = loss_sums(perfect._replace(**{name: value}), batch, network.host_columns)
        others = sums[:4].sum() - sums[term]  # the event as a whole sees presence and momentum too
        assert sums[term] > 1
        assert others < 1e-5
        assert (sums[4] > 1e-3) == (name in ("presence", "momentum"))


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
