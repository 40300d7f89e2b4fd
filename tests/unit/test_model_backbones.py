"""Every backbone: what an element's output may depend on, what it costs, and where the near-linear
ones cut.
"""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from particleforge.config.model import ModelConfig
from particleforge.export.onnx_model import convert, make_session
from particleforge.model.attention import attend
from particleforge.model.backbones import BACKBONES
from particleforge.model.curve import Geometry, _hilbert_index, curve_orders, inverse, take
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import Batch, loss_sums
from particleforge.model.network import ParticleFlowNetwork
from particleforge.model.windows import from_windows, into_windows, with_neighbours

from .synthetic_shards import write_synthetic
from .test_model import TOLERANCE, decoded, make_batch, reordered

LINEAR = ("windowed_attention", "gnn_lsh")
SMALL = {
    "width": 16,
    "n_layers": 4,
    "n_heads": 2,
    "window_elements": 8,
    "bin_elements": 8,
    "hash_directions": 3,
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ModelInputs:
    return ModelInputs.from_manifest(
        write_synthetic(tmp_path_factory.mktemp("shards"), train=(1,), valid=1, test=1)
    )


def network_of(inputs: ModelInputs, backbone: str, **changes: object) -> ParticleFlowNetwork:
    """Return a network whose elements influence one another and differ, as a trained one's do."""
    torch.manual_seed(0)
    network = ParticleFlowNetwork(
        ModelConfig(backbone=backbone, **{**SMALL, **changes}), inputs
    ).eval()
    for name, parameter in network.named_parameters():
        if "query_key_value.weight" in name or "coordinates.weight" in name:
            torch.nn.init.normal_(parameter, std=0.4)
    for head, std in ((network.identity_head, 1.5), (network.momentum_head, 0.3)):
        torch.nn.init.normal_(head[-1].weight, std=std)
    return network


@pytest.fixture(
    scope="module", params=[(b, local) for b in LINEAR for local in (True, False)], ids=str
)
def decoder(request: pytest.FixtureRequest, inputs: ModelInputs) -> Decoder:
    backbone, local = request.param
    return Decoder(network_of(inputs, backbone, local_attention=local))


def test_registry_and_configuration_name_the_same_backbones() -> None:
    assert set(BACKBONES) == set(ModelConfig.model_fields["backbone"].annotation.__args__)


@settings(max_examples=10, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    padding=st.integers(0, 30),
    seed=st.integers(0, 1000),
)
def test_event_depends_on_neither_padding_nor_batch_mates(
    decoder: Decoder, lengths: list[int], padding: int, seed: int
) -> None:
    together = decoded(decoder, make_batch(lengths, seed, padding))
    for row, n in enumerate(lengths):
        alone = decoded(
            decoder, Batch(*(column[row : row + 1, :n] for column in make_batch(lengths, seed)))
        )
        for one, all_ in zip(alone, together, strict=True):
            assert (
                (one[0] - all_[row, :n]).abs().amax().item() <= TOLERANCE
                if n
                else one.shape[1] == 0
            )


@settings(max_examples=10, deadline=None)
@given(n=st.integers(2, 80), seed=st.integers(0, 1000))
def test_order_of_elements_permutes_the_output(decoder: Decoder, n: int, seed: int) -> None:
    batch = make_batch([n], seed)
    order = torch.from_numpy(np.random.default_rng(seed).permutation(n))
    permuted = decoded(decoder, reordered(batch, order))
    for one, other in zip(decoded(decoder, batch), permuted, strict=True):
        assert (one[:, order] - other).abs().amax() <= TOLERANCE


def test_order_does_not_matter_for_elements_in_one_place(decoder: Decoder) -> None:
    batch = make_batch([50])
    network = decoder.network
    columns = network.position_columns[batch.element_type]
    same_place = batch.features.scatter(-1, columns, torch.tensor([0.3, 0.6, 0.8]).expand(1, 50, 3))
    order = torch.from_numpy(np.random.default_rng(1).permutation(50))
    straight = decoded(decoder, batch._replace(features=same_place))
    permuted = decoded(decoder, reordered(batch._replace(features=same_place), order))
    for one, other in zip(straight, permuted, strict=True):
        assert (one[:, order] - other).abs().amax() <= TOLERANCE


def test_an_element_depends_on_the_others_of_its_event(decoder: Decoder) -> None:
    batch = make_batch([10])
    part = decoded(decoder, Batch(*(column[:, :5] for column in batch)))[0]
    assert (decoded(decoder, batch)[0][:, :5] - part).abs().amax() > 1e-3


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("lengths", [[0], [1], [8, 0, 1, 33]], ids=str)
def test_gradients_are_finite_and_equal_with_checkpointing(
    inputs: ModelInputs, backbone: str, lengths: list[int]
) -> None:
    network, batch = network_of(inputs, backbone).train(), make_batch(lengths)

    def gradient() -> torch.Tensor:
        network.zero_grad()
        loss_sums(
            network(batch.features, batch.element_type), batch, network.host_columns
        ).sum().backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    stored = gradient()
    network.checkpointing = True
    assert stored.isfinite().all()
    assert stored.abs().sum() > 0 or lengths == [0]
    assert torch.equal(stored, gradient())


def test_checkpointing_stores_less(inputs: ModelInputs) -> None:
    network, batch = network_of(inputs, "attention").train(), make_batch([200])

    def stored() -> int:
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = network(batch.features, batch.element_type)
        assert outputs.presence.requires_grad
        return sum(sizes.values())

    all_of_it = stored()
    network.checkpointing = True
    assert stored() < 0.7 * all_of_it


def flops(network: ParticleFlowNetwork, n: int) -> int:
    """Return the floating-point operations of the whole network, forward and backward."""
    batch = make_batch([n])
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        outputs = network(batch.features, batch.element_type)
        sum(output.sum() for output in outputs if output.requires_grad).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("backbone", LINEAR)
def test_cost_grows_linearly(inputs: ModelInputs, backbone: str) -> None:
    network = network_of(inputs, backbone)
    costs = np.array([flops(network, n) for n in (127, 255, 511)])
    assert costs.tolist() == pytest.approx([costs[0], 2 * costs[0], 4 * costs[0]], rel=0.01)


def test_cost_of_full_attention_does_not(inputs: ModelInputs) -> None:
    network = network_of(inputs, "attention")
    assert flops(network, 512) > 2.5 * flops(network, 256)


@pytest.mark.parametrize("local", [True, False])
def test_one_window_is_full_attention(inputs: ModelInputs, local: bool) -> None:
    windowed = network_of(inputs, "windowed_attention", window_elements=64, local_attention=local)
    full = network_of(inputs, "attention", local_attention=local)
    full.load_state_dict(windowed.state_dict())
    batch = make_batch([40, 3, 0, 63])
    real = batch.element_type > 0
    with torch.no_grad():
        found, expected = windowed(*batch[:2]), full(*batch[:2])
    for name in ("presence", "classes", "charge", "momentum", "mass"):
        one, other = getattr(found, name), getattr(expected, name)
        assert torch.allclose(one[real], other[real], atol=1e-5)


def test_windows_reach_no_farther_than_their_neighbours(inputs: ModelInputs) -> None:
    network = network_of(inputs, "windowed_attention", n_layers=1, local_attention=False)
    batch = make_batch([64])
    order = curve_orders(geometry_of(network, batch), 1)[0, 0]
    moved = batch.features.clone()
    # momentum of the last element along the curve, in the ninth window of eight
    moved[0, order[-1], 0] *= 3
    with torch.no_grad():
        change = (
            (network(*batch[:2]).classes - network(moved, batch.element_type).classes)
            .abs()
            .amax(-1)[0, order]
        )
    assert change[:48].max() == 0
    assert (change[48:] > 0).all()


def geometry_of(network: ParticleFlowNetwork, batch: Batch) -> Geometry:
    position = batch.features.gather(-1, network.position_columns[batch.element_type])
    return Geometry(position, batch.features[..., 4], batch.element_type > 0, network.slopes)


def test_hilbert_curve_visits_every_cell_by_single_steps() -> None:
    side = 2**11
    corner = torch.arange(32)  # a block of 32 x 32 cells is visited in one go
    x, y = (v.flatten() for v in torch.meshgrid(corner, corner, indexing="ij"))
    index = _hilbert_index((x + 0.5) / side, (y + 0.5) / side)
    order = index.argsort()
    assert torch.equal(index[order], torch.arange(1024.0))
    assert ((x[order].diff().abs() + y[order].diff().abs()) == 1).all()
    ends = _hilbert_index(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 0.0]))
    assert ends.tolist() == [0, side**2 - 1]


def test_curves_keep_neighbours_together() -> None:
    rng = np.random.default_rng(0)
    n = 4000
    eta, phi = rng.uniform(-3, 3, n), rng.uniform(-np.pi, np.pi, n)
    position = torch.tensor(np.stack([eta, np.sin(phi), np.cos(phi)], -1), dtype=torch.float32)[
        None
    ]
    geometry = Geometry(
        position, torch.rand(1, n), torch.ones(1, n, dtype=torch.bool), torch.zeros(1)
    )
    nearest = torch.cdist(position[0], position[0]).fill_diagonal_(9).argmin(-1)
    places = torch.stack([inverse(order)[0] for order in curve_orders(geometry, 3)])
    apart = (places - places[:, nearest]).abs() > 192
    assert apart.float().mean() < 0.06, "random places would be nearly all apart"
    assert apart.all(0).float().mean() < 0.005, "what one curve separates another keeps together"


@settings(max_examples=20, deadline=None)
@given(n=st.integers(0, 40), size=st.integers(1, 9), events=st.integers(0, 3))
def test_windows_and_orders_are_undone(n: int, size: int, events: int) -> None:
    x = torch.randn(events, n, 4)
    windows = into_windows(x, size)
    assert torch.equal(from_windows(windows.flatten(0, 1), x.shape), x)
    assert torch.equal(with_neighbours(windows)[:, 1:, :size], windows[:, :-1])
    order = torch.rand(events, n).argsort(-1)
    assert torch.equal(take(take(x, order), inverse(order)), x)


def test_attention_to_more_keys_than_queries_is_the_same_in_bfloat16() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 8, generator=generator) for n in (8, 24, 24))
    mask = -3 * torch.rand(3, 2, 8, 24, generator=generator)
    rounded = [tensor.bfloat16() for tensor in (query, key, value, mask)]
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    assert torch.allclose(attend(*rounded, dropout=0.0).float(), expected, atol=0.03)


@pytest.mark.integration  # torch takes long to translate
@pytest.mark.parametrize("backbone", LINEAR)
def test_export_says_the_same_at_any_length(inputs: ModelInputs, backbone: str) -> None:
    decoder = Decoder(network_of(inputs, backbone, n_layers=2))
    session = make_session(convert(decoder, 20, 0.5, {}))
    for lengths in ([0], [1], [7], [8], [3, 0, 65], [300]):
        batch = make_batch(lengths, seed=3)
        feed = {"features": batch.features.numpy(), "element_type": batch.element_type.numpy()}
        scores, p4 = session.run(["class_scores", "p4"], feed)
        with torch.no_grad():
            expected, _, expected_p4, _ = decoder(batch.features, batch.element_type)
        assert scores.shape == expected.shape
        assert np.allclose(scores, expected, atol=TOLERANCE)
        assert np.allclose(p4, expected_p4, rtol=1e-4, atol=1e-4)
