"""The forms of the loss: what each is by its definition, and that none depends on packing."""

import pytest
import torch
from torch.nn import functional

from particleforge.config.model import ModelConfig
from particleforge.config.training import LossConfig
from particleforge.model.decode import Decoder
from particleforge.model.inputs import ModelInputs
from particleforge.model.loss import (
    JUDGED,
    TERMS,
    Batch,
    counts,
    denominators,
    loss_sums,
    term_weights,
)
from particleforge.model.momentum import N_CORRECTIONS, host_momentum, to_corrections
from particleforge.model.network import Outputs, ParticleFlowNetwork
from particleforge.tables.schema import N_SHARES

from .synthetic_shards import write_synthetic
from .test_model import make_batch

SMALL = {"width": 16, "n_layers": 1, "n_heads": 2}
EVERYTHING = LossConfig(
    event=0.7,
    uncertainty=0.5,
    presence_focal_gamma=2.0,
    classification_focal_gamma=0.5,
    momentum_form="absolute",
    huber_delta=0.3,
)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> ModelInputs:
    return ModelInputs.from_manifest(
        write_synthetic(tmp_path_factory.mktemp("shards"), train=(1,), valid=1, test=1)
    )


@pytest.fixture
def network(inputs: ModelInputs) -> ParticleFlowNetwork:
    torch.manual_seed(0)
    network = ParticleFlowNetwork(ModelConfig(momentum_uncertainty=True, **SMALL), inputs)
    torch.nn.init.normal_(network.momentum_head[-1].weight, std=0.1)
    return network


def term(
    name: str,
    outputs: Outputs,
    batch: Batch,
    network: ParticleFlowNetwork,
    config: LossConfig = JUDGED,
) -> torch.Tensor:
    return loss_sums(outputs, batch, network.host_columns, config)[TERMS.index(name)]


def weighed(batch: Batch, of_correction: torch.Tensor) -> torch.Tensor:
    """Return the sum over particles: corrections averaged with twice the weight for pT, sqrt(E)."""
    weight = batch.target_p4[..., 3].clamp(min=0.1).sqrt() * (batch.target_class > 0)
    return ((of_correction.sum(-1) + of_correction[..., 0]) / 5 * weight).sum()


def test_default_forms_are_those_of_torch(network: ParticleFlowNetwork) -> None:
    batch = make_batch([30, 4], padding=3)
    outputs = network(*batch[:2])
    real, particle = batch.element_type > 0, batch.target_class > 0
    target = to_corrections(
        batch.target_p4, host_momentum(batch.features, network.host_columns[batch.element_type])
    )
    expected = {
        "presence": functional.binary_cross_entropy_with_logits(
            outputs.presence[real], particle[real].float(), reduction="sum"
        ),
        "classification": functional.cross_entropy(
            outputs.classes[particle], batch.target_class[particle] - 1, reduction="sum"
        ),
        "charge": functional.cross_entropy(
            outputs.charge[particle], batch.target_charge[particle] + 1, reduction="sum"
        ),
        "momentum": weighed(
            batch,
            functional.huber_loss(outputs.momentum[..., :N_CORRECTIONS], target, reduction="none"),
        ),
    }
    for config in (JUDGED, LossConfig()):
        for name, value in expected.items():
            assert term(name, outputs, batch, network, config).item() == pytest.approx(
                value.item(), rel=1e-5
            )


def test_focal_forms_weigh_each_element_by_its_miss(network: ParticleFlowNetwork) -> None:
    batch = make_batch([40])
    outputs = network(*batch[:2])
    particle = batch.target_class[0] > 0
    p = outputs.presence[0].sigmoid()
    p = torch.where(particle, p, 1 - p)
    expected = -((1 - p) ** 2 * p.log()).sum()
    assert term(
        "presence", outputs, batch, network, LossConfig(presence_focal_gamma=2)
    ).item() == pytest.approx(expected.item(), rel=1e-4)
    p = (
        outputs.classes[0][particle]
        .softmax(-1)
        .gather(-1, batch.target_class[0][particle, None] - 1)
    )
    expected = -((1 - p) ** 1.5 * p.log()).sum()
    found = term(
        "classification", outputs, batch, network, LossConfig(classification_focal_gamma=1.5)
    )
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)


def test_forms_of_regression(network: ParticleFlowNetwork) -> None:
    batch = make_batch([12])
    outputs = network(*batch[:2])
    target = to_corrections(
        batch.target_p4, host_momentum(batch.features, network.host_columns[batch.element_type])
    )
    expected = weighed(batch, (outputs.momentum[..., :N_CORRECTIONS] - target).abs()).item()
    found = term("momentum", outputs, batch, network, LossConfig(momentum_form="absolute"))
    assert found.item() == pytest.approx(expected, rel=1e-5)
    found = term("momentum", outputs, batch, network, LossConfig(huber_delta=1e-3))
    assert found.item() == pytest.approx(1e-3 * expected, rel=0.02)


def with_weights(batch: Batch, weights: list[float]) -> Batch:
    """Return the batch with the weights of its events; padding has them, too, and must not."""
    of_events = torch.tensor(weights)[:, None, None]
    return batch._replace(weight=of_events.expand(*batch.element_type.shape, 1))


def gradients(
    network: ParticleFlowNetwork, batch: Batch, config: LossConfig
) -> tuple[float, torch.Tensor]:
    """Return loss and gradient of a global batch."""
    network.zero_grad()
    divisor = denominators(counts(batch, network.host_columns)).float()
    sums = loss_sums(network(*batch[:2]), batch, network.host_columns, config)
    loss = sums / divisor @ term_weights(config)
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in network.parameters()])


def batch_of(
    features: torch.Tensor, types: torch.Tensor, classes: torch.Tensor, p4: torch.Tensor
) -> Batch:
    """Return a batch without charges whose shares are not known."""
    hosts, shares = (
        torch.full((*types.shape, N_SHARES), -1),
        torch.zeros(*types.shape, N_SHARES + 1),
    )
    return Batch(
        *(features, types, classes, torch.zeros_like(classes), p4, hosts, shares),
        weight=torch.zeros(*types.shape, 0),
    )


def test_event_term_is_the_visible_momentum_in_units_of_its_resolution(
    network: ParticleFlowNetwork,
) -> None:
    """Two particles of 10 GeV along x and y, of which the second is not found: py misses 10 GeV, E
    misses 10 of 20.
    """
    types = torch.tensor([[1, 1, 0], [0, 0, 0]])
    features = torch.zeros(2, 3, network.inputs.n_features)
    features[0, 0, :5] = torch.tensor([10.0, 0, 0, 1, 10])  # pt, eta, sin phi, cos phi, p
    features[0, 1, :5] = torch.tensor([10.0, 0, 1, 0, 10])
    features[0, 2, :5] = torch.tensor([99.0, 0, 1, 0, 99])  # padding
    p4 = torch.zeros(2, 3, 4)
    p4[0, 0], p4[0, 1] = torch.tensor([10.0, 0, 0, 10]), torch.tensor([0.0, 10, 0, 10])
    classes = torch.tensor([[1, 1, 0], [0, 0, 0]])
    batch = batch_of(features, types, classes, p4)
    presence = torch.tensor([[50.0, -50, 50], [50, 50, 50]], requires_grad=True)
    zeros = torch.zeros(2, 3, N_CORRECTIONS)
    outputs = network(features, types)._replace(
        presence=presence, momentum=zeros, mass=torch.zeros(2, 3), log_hidden=torch.zeros(2, 3)
    )
    missing = 10 / 21**0.5
    value = term("event", outputs, batch, network)
    assert value.item() == pytest.approx(2 * (missing - 0.5) / 4, rel=1e-5)
    weight = 2 * 10**0.5
    numbers = counts(batch, network.host_columns)
    assert numbers.tolist() == pytest.approx([2, 2, 1, weight, 0])
    assert denominators(numbers).tolist() == pytest.approx([2, 2, 2, weight, 1, 2, 1])
    unused = LossConfig(event=0.0)
    value = term("event", outputs, batch, network, unused)
    assert not torch.autograd.grad(value, presence)[0].any(), "nothing is computed without weight"
    halfway = outputs._replace(presence=torch.zeros(2, 3, requires_grad=True))
    term("event", halfway, batch, network, LossConfig(event=1.0)).backward()
    gradient = halfway.presence.grad
    assert (gradient[0, :2] < 0).all(), "both particles are to be found"
    assert not gradient[0, 2]
    assert not gradient[1].any()


def test_sums_leave_the_momenta_of_tracks_alone(network: ParticleFlowNetwork) -> None:
    """What a track hides is a factor in sums, which they train in place of its momentum."""
    batch = make_batch([20])
    outputs = network(*batch[:2])
    momentum = outputs.momentum.detach().requires_grad_()
    hidden = torch.zeros_like(outputs.log_hidden, requires_grad=True)
    outputs = outputs._replace(momentum=momentum, log_hidden=hidden)
    term("event", outputs, batch, network, LossConfig(event=1.0)).backward()
    is_track = batch.element_type == 1
    assert not momentum.grad[is_track].any()
    assert momentum.grad[batch.element_type == 2].any()
    assert (hidden.grad[is_track] != 0).all()


def test_empty_padding_gives_the_event_term_no_gradient(network: ParticleFlowNetwork) -> None:
    """Elements that are all zeros, as the loader pads with, where the network corrects nothing:
    their momentum is 0.
    """
    batch = make_batch([4, 2], padding=3)
    real = batch.element_type > 0
    empty = Batch(
        *(
            torch.where(real.unsqueeze(-1) if column.ndim == 3 else real, column, 0)
            for column in batch
        )
    )
    momentum = torch.zeros(2, 7, N_CORRECTIONS, requires_grad=True)
    outputs = network(empty.features, empty.element_type)._replace(momentum=momentum)
    loss_sums(outputs, empty, network.host_columns, LossConfig(event=1.0))[
        TERMS.index("event")
    ].backward()
    assert momentum.grad.isfinite().all()
    assert momentum.grad[real].any()
    assert not momentum.grad[~real].any()


def test_uncertainty_is_learnt_where_the_error_is(network: ParticleFlowNetwork) -> None:
    """At its minimum sigma is the error (beta 0).

    With beta 1 the mean's gradient is that of the squared error.
    """
    batch = make_batch([20])
    particle = batch.target_class > 0
    target = to_corrections(
        batch.target_p4, host_momentum(batch.features, network.host_columns[batch.element_type])
    )
    error = torch.linspace(0.1, 3, 20)[None, :, None].expand_as(target)

    def gradient(log_sigma: torch.Tensor, beta: float) -> torch.Tensor:
        momentum = torch.cat((target + error, log_sigma), -1).detach().requires_grad_()
        outputs = network(*batch[:2])._replace(momentum=momentum)
        term("uncertainty", outputs, batch, network, LossConfig(uncertainty_beta=beta)).backward()
        return momentum.grad[particle]

    assert gradient(error.log(), 0.0)[:, N_CORRECTIONS:].abs().max() < 1e-5
    assert (gradient(error.log() - 1, 0.0)[:, N_CORRECTIONS:] < -0.1).all()
    assert (gradient(error.log() + 1, 0.0)[:, N_CORRECTIONS:] > 0.1).all()
    assert torch.allclose(
        gradient(error.log() + 1, 1.0)[:, :N_CORRECTIONS],
        error[particle] / N_CORRECTIONS,
        rtol=1e-4,
    )


def test_networks_without_uncertainty_have_no_such_term(inputs: ModelInputs) -> None:
    network, batch = ParticleFlowNetwork(ModelConfig(**SMALL), inputs), make_batch([9])
    outputs = network(*batch[:2])
    assert outputs.momentum.shape[-1] == N_CORRECTIONS
    assert term("uncertainty", outputs, batch, network, EVERYTHING) == 0


def test_uncertainty_changes_no_decoded_momentum(network: ParticleFlowNetwork) -> None:
    batch, decoder = make_batch([9]), Decoder(network)
    with torch.no_grad():
        before = decoder(*batch[:2])
        network.momentum_head[-1].weight[N_CORRECTIONS:] += 1
        assert all(
            torch.equal(one, other) for one, other in zip(before, decoder(*batch[:2]), strict=True)
        )
        assert network(*batch[:2]).momentum.shape[-1] == 2 * N_CORRECTIONS


def test_what_is_judged_has_the_default_weights_and_forms() -> None:
    changed = {"uncertainty": 0.0, "uncertainty_beta": 0.0, "shares": 0.0}
    assert JUDGED.model_dump() == LossConfig().model_dump() | changed


@pytest.mark.parametrize("config", [LossConfig(), EVERYTHING], ids=["default", "every option"])
@pytest.mark.parametrize("weights_of_events", [None, [2.0, 1.0, 1e-3, 0.0, 30.0]])
def test_loss_and_gradient_do_not_depend_on_packing(
    network: ParticleFlowNetwork, config: LossConfig, weights_of_events: list[float] | None
) -> None:
    lengths = [7, 0, 19, 1, 12]
    whole = make_batch(lengths)
    if weights_of_events:
        whole = with_weights(whole, weights_of_events)
    divisor = denominators(counts(whole, network.host_columns)).float()
    weights = term_weights(config)

    def gradients(parts: list[Batch]) -> tuple[float, torch.Tensor]:
        network.zero_grad()
        loss = 0.0
        for part in parts:
            value = (
                loss_sums(network(*part[:2]), part, network.host_columns, config)
                / divisor
                @ weights
            )
            value.backward()
            loss += value.item()
        return loss, torch.cat([p.grad.flatten() for p in network.parameters()])

    loss, gradient = gradients([whole])
    split_loss, split_gradient = gradients(
        [Batch(*(column[i : i + 1, :n] for column in whole)) for i, n in enumerate(lengths)]
    )
    assert loss == pytest.approx(split_loss, rel=1e-6)
    assert (gradient - split_gradient).norm() <= 1e-6 * gradient.norm()
    assert gradient.isfinite().all()


def test_every_weight_and_form_changes_the_gradient(network: ParticleFlowNetwork) -> None:
    batch = make_batch([25])

    def gradient(config: LossConfig) -> torch.Tensor:
        network.zero_grad()
        (
            loss_sums(network(*batch[:2]), batch, network.host_columns, config)
            @ term_weights(config)
        ).backward()
        return torch.cat([p.grad.flatten() for p in network.parameters()])

    before = gradient(LossConfig())
    changes = {"momentum_form": "absolute", "uncertainty_beta": 0.1, "huber_delta": 0.2}
    for name in LossConfig.model_fields:
        assert not torch.allclose(
            before, gradient(LossConfig(**{name: changes.get(name, 3.0)})), rtol=1e-3
        ), name


SAME = [
    ("one unit is as good as another", [3e-10, 1e-9, 0.0, 7e-12], [3e5, 1e6, 0.0, 7e3]),
    ("equal weights are none", [0.3, 0.3, 0.3, 0.3], None),
]


@pytest.mark.parametrize("config", [LossConfig(), EVERYTHING], ids=["default", "every option"])
@pytest.mark.parametrize(("one", "other"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_only_ratios_of_event_weights_matter(
    network: ParticleFlowNetwork, config: LossConfig, one: list[float], other: list[float] | None
) -> None:
    batch = make_batch([7, 19, 0, 12], padding=2)
    second = with_weights(batch, other) if other else batch
    loss, gradient = gradients(network, with_weights(batch, one), config)
    expected_loss, expected = gradients(network, second, config)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("config", [LossConfig(), EVERYTHING], ids=["default", "every option"])
def test_a_weight_is_how_often_an_event_is_there(
    network: ParticleFlowNetwork, config: LossConfig
) -> None:
    batch = make_batch([7, 19, 4, 12], padding=2)
    repeated = Batch(*(column[[0, 0, 2, 3, 3, 3]] for column in batch))
    loss, gradient = gradients(network, with_weights(batch, [2.0, 0.0, 1.0, 3.0]), config)
    expected_loss, expected = gradients(network, repeated, config)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    assert (gradient - expected).norm() <= 1e-5 * expected.norm()
    unweighted_loss, unweighted = gradients(network, batch, config)
    assert unweighted_loss != pytest.approx(expected_loss, rel=1e-3)
    assert (gradient - unweighted).norm() > 0.01 * unweighted.norm()


def test_a_batch_of_events_without_weight_teaches_nothing(network: ParticleFlowNetwork) -> None:
    batch = with_weights(make_batch([7, 19]), [0.0, 0.0])
    loss, gradient = gradients(network, batch, EVERYTHING)
    assert loss == 0
    assert not gradient.any()
