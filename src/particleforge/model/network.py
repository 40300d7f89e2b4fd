"""The network over an event's elements: input encoder, layers of a backbone, shares, heads.

Inputs -> outputs: raw features float32 [B, N, F] and element types int64 [B, N] (0 padding, 1
track, 2 cluster) -> ``Outputs`` per element: presence logit [B, N], class logits [B, N, C], charge
logits [B, N, 3] for -1, 0, +1, momentum corrections [B, N, 4] (``momentum``) and the mass of the
most probable class; with ``model.momentum_uncertainty`` four more columns, the logarithms of the
standard deviations of the corrections. Of clusters also how their energy was dealt out
(``shares``).

Algorithm: the features' transforms and standardisation, one linear projection per element type,
``n_layers`` layers of the configured backbone in which the elements of an event learn of each other
(``backbones``), two multi-layer heads. There is no positional encoding: an event is a set. The last
layer of the momentum head starts at zero. An untrained network therefore answers with a track's own
momentum, and with the energy that a cluster received from all clusters (``shares``). Tracks
measure better than a network guesses: particles that they host keep their pT but for a learned part
of the way to the energy received, nothing at first, as bremsstrahlung needs. Directions are
corrected as elsewhere, since that of a track is told at the beam, where no displaced particle was.

Invariants: an element's output depends on the real elements of its own event only, not on padding,
batch-mates or order.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from particleforge.config.model import ModelConfig
from particleforge.model.attention import range_slopes
from particleforge.model.backbones import BACKBONES
from particleforge.model.curve import Geometry
from particleforge.model.feedforward import ACTIVATIONS
from particleforge.model.inputs import ModelInputs
from particleforge.model.momentum import N_CORRECTIONS, SCALES, host_momentum, to_corrections, to_p4
from particleforge.model.reach import Reach, reach_of
from particleforge.model.shares import N_TOLD, EnergyShares
from particleforge.model.surroundings import N_SURROUNDINGS, surroundings
from particleforge.tables.schema import ELEMENT_TYPES, HOST_FEATURES, PADDING, POSITION_FEATURES

N_CHARGES = 3  # -1, 0, +1
_TRANSFORMS = ("none", "log", "log1p", "asinh")
_LOG_SMALLEST = 1e-6
_TRACK = 1 + ELEMENT_TYPES.index("track")
_OWN_PART_GEV = 1e-2
_MIXED_START = (-6.0, -4.0)  # before the sigmoid: of the momentum, and in sums
_LOG_MIXED_MAX = 1.0
_STANDARDISED_MAX = 10.0  # a feature far outside of what training saw must not swamp the others


class Outputs(NamedTuple):
    """What the network says of each element; see the module's docstring."""

    presence: Tensor
    classes: Tensor
    charge: Tensor
    momentum: Tensor
    mass: Tensor  # of the most probable class in GeV, float32 [B, N]
    log_hidden: Tensor  # what sums multiply a track's candidate by, logarithm, float32 [B, N]
    log_share: Tensor  # of clusters, over what they reach, and the sink [B, N, M + 1]
    place: Tensor  # where each element stands in the order of what is reached, int64 [B, N]
    first: Tensor  # the place of the first element that each reaches, int64 [B, N]
    embedding: Tensor  # what the heads are given [B, N, width]


def weights(outputs: Outputs) -> Tensor:
    """Return what sums multiply candidates by, float32 [B, N].

    The probability of presence, of tracks times what clusters say of the energy that they hide.
    """
    return outputs.presence.float().sigmoid() * outputs.log_hidden.exp()


class Seen(NamedTuple):
    """What layers and heads need beside the embeddings of elements."""

    geometry: Geometry
    element_type: Tensor  # int64 [B, N]
    host: tuple[Tensor, ...]  # ``momentum.host_momentum``
    reach: Reach


class InputEncoder(nn.Module):
    """Transform, standardise and project raw features [B, N, F] to embeddings [B, N, width]."""

    mean: Tensor
    inverse_std: Tensor
    is_log: Tensor
    is_log1p: Tensor
    is_asinh: Tensor

    def __init__(self, inputs: ModelInputs, width: int) -> None:
        super().__init__()
        n_types, n_features = len(ELEMENT_TYPES) + 1, inputs.n_features  # row 0 is padding
        mean, inverse_std = torch.zeros(n_types, n_features), torch.zeros(n_types, n_features)
        kind = torch.zeros(n_types, n_features, dtype=torch.int64)
        for row, name in enumerate(inputs.element_types, start=1):
            features, moments = inputs.elements[name], inputs.normalisation[name]
            std = torch.tensor(moments["std"])
            mean[row, : len(features)] = torch.tensor(moments["mean"])
            inverse_std[row, : len(features)] = torch.where(
                std > _LOG_SMALLEST, 1 / std.clamp(min=_LOG_SMALLEST), 1.0
            )
            kind[row, : len(features)] = torch.tensor(
                [_TRANSFORMS.index(f["transform"]) for f in features]
            )
        self.register_buffer("mean", mean)
        self.register_buffer("inverse_std", inverse_std)
        for code, name in enumerate(_TRANSFORMS[1:], start=1):
            self.register_buffer(f"is_{name}", kind == code)
        n_columns = n_features + 1 + N_SURROUNDINGS
        self.project = nn.Linear((n_types - 1) * n_columns, width, bias=False)

    def standardise(self, features: Tensor, element_type: Tensor) -> Tensor:
        """Return transformed, standardised features [B, N, F]; unused columns and padding are 0."""
        x = torch.where(
            self.is_log[element_type], features.clamp(min=_LOG_SMALLEST).log(), features
        )
        x = torch.where(self.is_log1p[element_type], features.clamp(min=0).log1p(), x)
        x = torch.where(self.is_asinh[element_type], features.asinh(), x)
        x = (x - self.mean[element_type]) * self.inverse_std[element_type]
        return x.clamp(-_STANDARDISED_MAX, _STANDARDISED_MAX)

    def forward(self, features: Tensor, element_type: Tensor, around: Tensor) -> Tensor:
        """Return embeddings; ``around`` is what ``surroundings`` says.

        Each type has its own columns (features, a bias, surroundings) of one projection: one matrix
        product serves all.
        """
        x = functional.pad(self.standardise(features, element_type), (0, 1), value=1.0)
        x = torch.cat((x, around), -1)
        slots = [
            x * (element_type == row).unsqueeze(-1) for row in range(1, len(ELEMENT_TYPES) + 1)
        ]
        embedded: Tensor = self.project(torch.cat(slots, -1))
        return embedded


def _head(config: ModelConfig, n_outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.LayerNorm(config.width)]
    for _ in range(config.head_layers - 1):
        layers += [nn.Linear(config.width, config.width), ACTIVATIONS[config.activation]()]
    return nn.Sequential(*layers, nn.Linear(config.width, n_outputs))


class ParticleFlowNetwork(nn.Module):
    """The network; see the module's docstring for shapes and invariants.

    ``checkpointing``: forget what happens inside layers and compute it again on the way back (Chen
    et al., arXiv:1604.06174), which takes about a third more time and leaves one embedding per
    layer in memory.
    """

    host_columns: Tensor
    position_columns: Tensor
    slopes: Tensor
    masses: Tensor

    def __init__(self, model: ModelConfig, inputs: ModelInputs) -> None:
        super().__init__()
        self.config, self.inputs = model, inputs
        self.checkpointing = False
        self.encoder = InputEncoder(inputs, model.width)
        backbone = BACKBONES[model.backbone]
        self.prepare = backbone.prepare
        self.blocks = nn.ModuleList(backbone.layer(model, index) for index in range(model.n_layers))
        self.identity_head = _head(model, 1 + inputs.n_classes + N_CHARGES)
        self.momentum_head = _head(model, N_CORRECTIONS * (1 + model.momentum_uncertainty))
        self.shares = EnergyShares(model.width)
        self.tell = nn.Linear(N_TOLD, model.width)
        self.mixed = nn.Linear(model.width, 2)
        last = self.momentum_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        nn.init.zeros_(self.mixed.weight)
        self.mixed.bias.data.copy_(torch.tensor(_MIXED_START))
        self.register_buffer("host_columns", _columns(inputs, HOST_FEATURES))
        self.register_buffer("position_columns", _columns(inputs, POSITION_FEATURES))
        self.register_buffer("slopes", range_slopes(model))
        self.register_buffer(
            "masses", torch.tensor([float(c["mass_gev"]) for c in inputs.classes[1:]])
        )

    def forward(self, features: Tensor, element_type: Tensor) -> Outputs:
        """Return the outputs of raw ``features`` [B, N, F] and ``element_type`` [B, N].

        Rows of padding hold no meaning.
        """
        seen = self.look(features, element_type)
        shared = self.prepare(self.config, seen.geometry)
        x = self.encode(features, seen)
        for block in self.blocks:
            x = self.run(block, x, shared)
        return self.answer(x, seen)

    def run(self, part: nn.Module, *inputs: Any) -> Any:
        """Return what a part makes of its inputs, checkpointed if so set."""
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def look(self, features: Tensor, element_type: Tensor) -> Seen:
        """Return what layers and heads need beside the embeddings."""
        position = features.gather(-1, self.position_columns[element_type])
        host = host_momentum(features, self.host_columns[element_type])
        geometry = Geometry(position, host[1], element_type != PADDING, self.slopes)
        return Seen(geometry, element_type, host, reach_of(self.config, geometry))

    def encode(self, features: Tensor, seen: Seen) -> Tensor:
        """Return the embeddings that the first layer takes [B, N, width]."""
        around = surroundings(seen.geometry, seen.element_type == _TRACK, seen.reach)
        embedded: Tensor = self.encoder(features, seen.element_type, around)
        return embedded

    def answer(self, x: Tensor, seen: Seen) -> Outputs:
        """Return the outputs of the last layer's embeddings [B, N, width]."""
        is_cluster = seen.element_type > _TRACK
        zero = torch.zeros_like(seen.host[0])
        own = to_p4(zero.unsqueeze(-1).expand(*zero.shape, N_CORRECTIONS), seen.host, zero)
        own = own / own[..., 3:]  # of one GeV
        direction = own[..., :3]
        dealt = self.run(self.shares, x, seen.geometry, direction, is_cluster, seen.reach)
        x = x + self.tell(dealt.told.to(x.dtype))
        identity, momentum = self.identity_head(x), self.momentum_head(x)
        presence, classes, charge = identity.split([1, self.inputs.n_classes, N_CHARGES], -1)
        mass = self.masses[classes.argmax(-1)]
        # the smallest part of the own momentum gives what received nothing a direction
        start = to_corrections(dealt.received + _OWN_PART_GEV * own, seen.host)
        corrections, log_sigma = momentum.float().tensor_split([N_CORRECTIONS], -1)
        difference = dealt.told[..., :1].clamp(-_LOG_MIXED_MAX, _LOG_MIXED_MAX)
        mixed, hidden = (self.mixed(x).float().sigmoid() * difference).unbind(-1)
        of_track = torch.cat((mixed.unsqueeze(-1) / SCALES[0], corrections[..., 1:]), -1)
        log_hidden = torch.where(is_cluster, 0.0, hidden)
        corrections = torch.where(is_cluster.unsqueeze(-1), corrections + start, of_track)
        momentum = torch.cat((corrections, log_sigma), -1)
        outputs = presence.squeeze(-1), classes, charge, momentum, mass
        reach = seen.reach.place, seen.reach.first
        return Outputs(*outputs, log_hidden, dealt.log_share, *reach, x)


def _columns(inputs: ModelInputs, names: Mapping[str, Sequence[str]]) -> Tensor:
    """Return int64 [types, names]: the column of each type's features that has each name."""
    width = len(next(iter(names.values())))
    columns = torch.zeros(len(ELEMENT_TYPES) + 1, width, dtype=torch.int64)
    for row, element_type in enumerate(inputs.element_types, start=1):
        order = [feature["name"] for feature in inputs.elements[element_type]]
        columns[row] = torch.tensor([order.index(name) for name in names[element_type]])
    return columns
