"""The network over the elements of an event: input encoder, layers of a backbone, heads.

Inputs -> outputs: raw features float32 [B, N, F] and element types int64 [B, N] (0 padding, 1
track, 2 cluster) -> ``Outputs`` per element: presence logit [B, N], class logits [B, N, C], charge
logits [B, N, 3] for -1, 0, +1, and momentum corrections [B, N, 5] (``momentum``); with
``model.momentum_uncertainty`` five more columns, the logarithms of the standard deviations of the
corrections.

Algorithm: the features' transforms and standardisation, one linear projection per element type,
``n_layers`` layers of the configured backbone in which the elements of an event learn of each other
(``backbones``), two multi-layer heads. There is no positional encoding: an event is a set. The last
layer of the momentum head starts at zero, so that an untrained network answers with the host's own
momentum (``momentum``), which is nearly right for tracks.

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
from particleforge.model.momentum import N_CORRECTIONS
from particleforge.tables.schema import ELEMENT_TYPES, HOST_FEATURES, PADDING, POSITION_FEATURES

N_CHARGES = 3  # -1, 0, +1
_TRANSFORMS = ("none", "log", "log1p", "asinh")
_LOG_SMALLEST = 1e-6
_STANDARDISED_MAX = 10.0  # a feature far outside of what training saw must not swamp the others


class Outputs(NamedTuple):
    """What the network says of each element; see the module's docstring."""

    presence: Tensor
    classes: Tensor
    charge: Tensor
    momentum: Tensor


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
        self.project = nn.Linear((n_types - 1) * (n_features + 1), width, bias=False)

    def standardise(self, features: Tensor, element_type: Tensor) -> Tensor:
        """Return transformed, standardised features [B, N, F]; unused columns and padding are 0."""
        x = torch.where(
            self.is_log[element_type], features.clamp(min=_LOG_SMALLEST).log(), features
        )
        x = torch.where(self.is_log1p[element_type], features.clamp(min=0).log1p(), x)
        x = torch.where(self.is_asinh[element_type], features.asinh(), x)
        x = (x - self.mean[element_type]) * self.inverse_std[element_type]
        return x.clamp(-_STANDARDISED_MAX, _STANDARDISED_MAX)

    def forward(self, features: Tensor, element_type: Tensor) -> Tensor:
        """Return embeddings.

        Each type has its own columns (features and a bias) of one projection: one matrix product
        serves all.
        """
        x = functional.pad(self.standardise(features, element_type), (0, 1), value=1.0)
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
        last = self.momentum_head[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.register_buffer("host_columns", _columns(inputs, HOST_FEATURES))
        self.register_buffer("position_columns", _columns(inputs, POSITION_FEATURES))
        self.register_buffer("slopes", range_slopes(model))

    def forward(self, features: Tensor, element_type: Tensor) -> Outputs:
        """Return the outputs of raw ``features`` [B, N, F] and ``element_type`` [B, N].

        Rows of padding hold no meaning.
        """
        shared = self.share(features, element_type)
        x = self.encoder(features, element_type)
        checkpointing = self.checkpointing and torch.is_grad_enabled()
        for block in self.blocks:
            x = (
                checkpoint(block, x, shared, use_reentrant=False)
                if checkpointing
                else block(x, shared)
            )
        return self.answer(x)

    def share(self, features: Tensor, element_type: Tensor) -> Any:
        """Return what all layers need beside the embeddings, as the backbone prepares it."""
        position = features.gather(-1, self.position_columns[element_type])
        energy = features.gather(-1, self.host_columns[element_type][..., 1:2]).squeeze(-1)
        return self.prepare(
            self.config, Geometry(position, energy, element_type != PADDING, self.slopes)
        )

    def answer(self, x: Tensor) -> Outputs:
        """Return the outputs of the last layer's embeddings [B, N, width]."""
        identity, momentum = self.identity_head(x), self.momentum_head(x)
        presence, classes, charge = identity.split([1, self.inputs.n_classes, N_CHARGES], -1)
        return Outputs(presence.squeeze(-1), classes, charge, momentum)


def _columns(inputs: ModelInputs, names: Mapping[str, Sequence[str]]) -> Tensor:
    """Return int64 [types, names]: the column of each type's features that has each name."""
    width = len(next(iter(names.values())))
    columns = torch.zeros(len(ELEMENT_TYPES) + 1, width, dtype=torch.int64)
    for row, element_type in enumerate(inputs.element_types, start=1):
        order = [feature["name"] for feature in inputs.elements[element_type]]
        columns[row] = torch.tensor([order.index(name) for name in names[element_type]])
    return columns
