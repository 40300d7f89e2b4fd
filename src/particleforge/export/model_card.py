"""The model card: what an exported model is, its training, quality, use and limits.

Inputs -> outputs: content of the checkpoint, the manifest and the parity report -> Markdown. After
Mitchell et al., "Model Cards for Model Reporting" (arXiv:1810.03993), as far as its sections apply
here.
"""

from typing import Any

from particleforge.config.settings import ExportSettings
from particleforge.export.parity import Parity
from particleforge.model.inputs import ModelInputs


def render_card(
    settings: ExportSettings,
    detector: str,
    saved: dict[str, Any],
    inputs: ModelInputs,
    manifest: dict[str, Any],
    parity: Parity,
    threshold: float,
    n_parameters: int,
) -> str:
    """Return the card as Markdown."""
    sections = (
        _summary(detector, saved, inputs.element_types[1], n_parameters),
        _interface(inputs, threshold, saved["model"]["width"] if settings.export.latents else 0),
        _data(settings.origin, manifest),
        _quality(saved, parity),
        _limits(manifest),
        _provenance(saved),
    )
    return "\n".join(sections)


def _summary(detector: str, saved: dict[str, Any], calorimeter_type: str, n_parameters: int) -> str:
    model = saved["model"]
    return f"""# Particle-flow model

Turns the tracks and calorimeter {calorimeter_type}s of one collision event into particles: for \
every element, whether it stands for a
particle, of which class, with which charge and four-momentum.

`ParticleFlowNetwork` with backbone `{model["backbone"]}` and {n_parameters} parameters: \
width {model["width"]},
{model["n_layers"]} layers, {model["n_heads"]} heads. Detector: `{detector}`.
An event's output does not depend on padding, on other events of the batch, or on the order \
of elements.
"""


def _interface(inputs: ModelInputs, threshold: float, n_latents: int) -> str:
    latents = (
        f"\n| `latents` | float32 | [batch, elements, {n_latents}] | what the heads are given of"
        " the element: its last embedding; 0 for padding |"
        if n_latents
        else ""
    )
    rows = []
    for code, name in enumerate(inputs.element_types, start=1):
        for column, feature in enumerate(inputs.elements[name]):
            rows.append(
                f"| {name} ({code}) | {column} | `{feature['name']}` | {feature.get('unit') or '-'}"
                f" | {feature['transform']} |"
            )
    classes = "\n".join(
        f"| {i} | {c['name']} | {c['pdg']} | {'yes' if c['charged'] else 'no'} |"
        for i, c in enumerate(inputs.classes[1:], start=1)
    )
    table = "\n".join(rows)
    return f"""## Inputs and outputs

| name | type | shape | meaning |
|---|---|---|---|
| `features` | float32 | [batch, elements, {inputs.n_features}] | raw features; transforms and \
normalisation are inside the model |
| `element_type` | int64 | [batch, elements] | 0 padding, {_codes(inputs)} |
| `class_scores` | float32 | [batch, elements, {inputs.n_classes + 1}] | probabilities; column 0 \
is "no particle" |
| `charge` | int64 | [batch, elements] | -1, 0 or 1; 0 where the most probable class is neutral |
| `p4` | float32 | [batch, elements, 4] | px, py, pz, energy in GeV |
| `weight` | float32 | [batch, elements] | factor of `p4` in sums: probability that there is a \
particle, on tracks times the energy that they hide |{latents}

Batch and elements are dynamic; an event may have no elements. Padding rows give scores (1, 0, \
...), charge 0, momentum 0, weight 0.

Sums (jets, missing momentum, visible energy) take `p4` times `weight` of all elements. Lists of \
particles take elements with a weight of at least {threshold:g}, chosen for the largest F1 on the \
valid split (0.5 where that is too small to choose on).

| element type | column | feature | unit | transform inside |
|---|---|---|---|---|
{table}

| class | name | PDG code | charged |
|---|---|---|---|
| 0 | none | - | - |
{classes}
"""


def _codes(inputs: ModelInputs) -> str:
    return ", ".join(f"{code} {name}" for code, name in enumerate(inputs.element_types, start=1))


def _data(origin: str, manifest: dict[str, Any]) -> str:
    splits = "\n".join(
        f"| {name} | {split['n_events']} | {split['n_elements']} |"
        for name, split in manifest["splits"].items()
    )
    return f"""## Training data

Events of the samples {", ".join(manifest["samples"])}, {origin}; splits are disjoint by event \
identity, the normalisation is from
the train split alone.

| split | events | elements |
|---|---|---|
{splits}
"""


def _quality(saved: dict[str, Any], parity: Parity) -> str:
    loss = (
        "none (no validation was made)"
        if saved["valid_loss"] is None
        else f"{saved['valid_loss']:.5f}"
    )
    return f"""## Quality

Best loss on the valid split: {loss}, after {saved["step"]} steps. The physics validation (jets, \
missing momentum, efficiency,
fake rate) is a stage of its own; see its metrics and the report.

Against the network in torch, on {parity.n_events} events of {parity.lengths[0]} to \
{parity.lengths[1]} elements, alone and in a padded
batch: class scores differ by at most {parity.score_difference:.1e}, momenta by at most \
{parity.momentum_difference:.1e} of the energy.
"""


def _limits(manifest: dict[str, Any]) -> str:
    return f"""## Limits

* Valid for events like those of the training samples ({", ".join(manifest["samples"])}), in the \
detector that recorded them; other
  detectors, energies or pile-up need a training of their own.
* One particle per element: particles that share an element come out as one.
* Trained on simulation only; nothing is known of its behaviour on recorded data.
* Scores are probabilities as trained, not calibrated afterwards.
"""


def _provenance(saved: dict[str, Any]) -> str:
    made = saved["provenance"]
    inputs = "\n".join(
        f"* input `{name}`, SHA-256 `{digest}`" for name, digest in made["inputs"].items()
    )
    packages = ", ".join(f"{name} {version}" for name, version in made["packages"].items())
    return f"""## Provenance

* training settings, hash `{made["settings_hash"]}`
{inputs}
* packages: {packages}
"""
