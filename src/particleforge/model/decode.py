"""From the network's outputs to physical particles: the outputs that the exported model promises.

Inputs -> outputs: ``network.Outputs`` with raw features and element types -> class scores [B, N, 1
+ C] (probabilities, column 0 is "none"), charge int64 [B, N] in units of e, four-momentum [B, N, 4]
= px, py, pz, energy in GeV, weight [B, N]; if asked for, latents [B, N, width], the embeddings that
the heads are given.

The score of class k is P(particle) P(k | particle). A particle's charge follows its class: 0 where
the most probable class is neutral, else the more probable of -1 and +1. The four-momentum is that
of the particle if there is one; the weight is the probability that there is, and of a track's
particle that times a factor for the energy that its clusters hide (``network.weights``). A sum over
elements multiplies the two, which gives its expected value. Padding gives scores (1, 0, ...),
charge 0, momentum 0, weight 0, latents 0.
"""

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from particleforge.model.momentum import N_CORRECTIONS, host_momentum, to_p4
from particleforge.model.network import Outputs, ParticleFlowNetwork, weights
from particleforge.tables.schema import LATENTS, PADDING

OUTPUT_NAMES = ("class_scores", "charge", "p4", "weight")


class Decoder(nn.Module):
    """A network with decoding: raw features in, physical particles out, latents if asked for."""

    is_charged: Tensor

    def __init__(self, network: ParticleFlowNetwork, latents: bool = False) -> None:
        super().__init__()
        self.network, self.latents = network, latents
        self.register_buffer(
            "is_charged", torch.tensor([bool(c["charged"]) for c in network.inputs.classes[1:]])
        )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, in their order."""
        return (*OUTPUT_NAMES, LATENTS.name) if self.latents else OUTPUT_NAMES

    def forward(self, features: Tensor, element_type: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that ``output_names`` names; see the module's docstring.

        One element of padding is appended and its answer dropped: an event without elements would
        otherwise give tensors of zero size inside, which onnxruntime cannot reshape.
        """
        features = functional.pad(features, (0, 0, 0, 1))
        element_type = functional.pad(element_type, (0, 1))
        outputs: Outputs = self.network(features, element_type)
        real = element_type != PADDING
        present = torch.sigmoid(outputs.presence.float()) * real
        given_present = torch.softmax(outputs.classes.float(), -1)
        scores = torch.cat(((1 - present).unsqueeze(-1), present.unsqueeze(-1) * given_present), -1)
        negative, _, positive = outputs.charge.float().unbind(-1)
        charged = self.is_charged[given_present.argmax(-1)] & real
        charge = torch.where(charged, torch.where(positive > negative, 1, -1), 0)
        host = host_momentum(features, self.network.host_columns[element_type])
        p4 = torch.where(
            real.unsqueeze(-1),
            to_p4(outputs.momentum[..., :N_CORRECTIONS].float(), host, outputs.mass),
            0.0,
        )
        weight = weights(outputs) * real
        found = [scores, charge, p4, weight]
        if self.latents:
            found.append(torch.where(real.unsqueeze(-1), outputs.embedding.float(), 0.0))
        return tuple(output[:, :-1] for output in found)
