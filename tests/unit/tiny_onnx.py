"""A small ONNX model with the interface of an exported one, built without torch.

Per element: presence, which is the weight, follows from its first feature (pT or ET), the class
from its type and its fifth (p or energy), the four-momentum from the first features, plus a small
term that depends on all real elements of the event, so that a test can see whether padding or
batch-mates leak into an event.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ELEMENTS = {
    "track": (
        [
            {"name": "pt", "transform": "log", "unit": "GeV"},
            {"name": "sin_phi", "transform": "none", "unit": ""},
        ]
        + [
            {"name": name, "transform": "none", "unit": ""}
            for name in ("cos_phi", "eta", "p", "eta_calo", "sin_phi_calo", "cos_phi_calo")
        ]
    ),
    "cluster": [
        {"name": "et", "transform": "log", "unit": "GeV"},
        {"name": "sin_phi", "transform": "none", "unit": ""},
    ]
    + [{"name": name, "transform": "none", "unit": ""} for name in ("cos_phi", "eta", "energy")],
}
CLASSES = [
    {"name": "none"},
    {"name": "charged_hadron", "label": "h", "pdg": 211, "charged": True, "mass_gev": 0.13957},
    {"name": "neutral_hadron", "label": "n", "pdg": 130, "charged": False, "mass_gev": 0.49761},
    {"name": "photon", "label": "y", "pdg": 22, "charged": False, "mass_gev": 0.0},
    {"name": "electron", "label": "e", "pdg": 11, "charged": True, "mass_gev": 0.000511},
    {"name": "muon", "label": "m", "pdg": 13, "charged": True, "mass_gev": 0.10566},
]

PRESENCE_THRESHOLD = 0.37


def expected(
    features: np.ndarray, element_type: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return class scores, charge and p4 that the model gives for one event without padding, [n, 8]
    and [n] -> [n, ...].
    """
    pt, sin_phi, energy = features[:, 0], features[:, 1], features[:, 4]
    present = (pt > 1).astype(np.float32) * 0.9
    which = np.where(element_type == 2, 3, np.where(energy > 5, 4, 1))
    scores = np.zeros((len(pt), len(CLASSES)), np.float32)
    scores[:, 0] = 1 - present
    scores[np.arange(len(pt)), which] = present
    charge = np.where(element_type == 2, 0, np.where(sin_phi > 0, 1, -1))
    p4 = np.stack([pt * features[:, 2], pt * sin_phi, pt * np.sinh(features[:, 3]), energy], axis=1)
    return scores, charge, p4 + 1e-3 * features[:, 4].sum()


def write_model(
    path: Path, *, metadata: dict[str, Any] | None = None, older: bool = False, latents: int = 0
) -> Path:
    """Write the model; ``metadata`` replaces what it says about itself, an older one gives no
    weight. Its latents are the first so many features.
    """
    constants = {
        "zero": np.float32(0),
        "one": np.float32(1),
        "two": np.int64(2),
        "pad": np.int64(0),
        "five": np.float32(5),
        "share": np.float32(0.9),
        "small": np.float32(1e-3),
        "axis": np.array([1]),
        "last": np.array([2]),
        "plus": np.int64(1),
        "minus": np.int64(-1),
        "neutral": np.int64(0),
        "none_only": np.array([1, 0, 0, 0, 0, 0], np.float32),
        "depth": np.array([len(CLASSES)]),
        "off_on": np.array([0, 1], np.float32),
        "class_track": np.int64(1),
        "class_photon": np.int64(3),
        "class_electron": np.int64(4),
    }
    columns = ("pt", "sin", "cos", "eta", "energy")
    nodes = [
        helper.make_node("Gather", ["features", f"column{i}"], [name], axis=2)
        for i, name in enumerate(columns)
    ]
    constants |= {f"column{i}": np.int64(i) for i in range(5)}

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))

    add("Greater", ["element_type", "pad"], "real")
    add("Cast", ["real"], "real_float", to=TensorProto.FLOAT)
    add("Greater", ["pt", "one"], "hard")
    add("Cast", ["hard"], "hard_float", to=TensorProto.FLOAT)
    add("Mul", ["hard_float", "real_float"], "hard_real")
    add("Mul", ["hard_real", "share"], "weight")
    add("Sub", ["one", "weight"], "absent")
    add("Equal", ["element_type", "two"], "is_cluster")
    add("Greater", ["energy", "five"], "energetic")
    add("Where", ["energetic", "class_electron", "class_track"], "track_class")
    add("Where", ["is_cluster", "class_photon", "track_class"], "which")
    add("OneHot", ["which", "depth", "off_on"], "one_hot", axis=-1)
    add("Unsqueeze", ["weight", "last"], "present_column")
    add("Unsqueeze", ["absent", "last"], "absent_column")
    add("Mul", ["one_hot", "present_column"], "particle_scores")
    add("Mul", ["none_only", "absent_column"], "none_scores")
    add("Add", ["particle_scores", "none_scores"], "class_scores")
    add("Greater", ["sin", "zero"], "up")
    add("Where", ["up", "plus", "minus"], "sign")
    add("Where", ["is_cluster", "neutral", "sign"], "charge_all")
    add("Where", ["real", "charge_all", "neutral"], "charge")
    add("Mul", ["energy", "real_float"], "energy_real")
    add("ReduceSum", ["energy_real", "axis"], "event_energy", keepdims=1)
    add("Mul", ["event_energy", "small"], "leak")
    add("Sinh", ["eta"], "sinh_eta")
    for name, factor in (("px", "cos"), ("py", "sin"), ("pz", "sinh_eta")):
        add("Mul", ["pt", factor], name)
    for name in ("px", "py", "pz", "energy"):
        add("Add", [name, "leak"], f"{name}_sum")
        add("Mul", [f"{name}_sum", "real_float"], f"{name}_real2")
        add("Unsqueeze", [f"{name}_real2", "last"], f"{name}_column")
    add("Concat", [f"{name}_column" for name in ("px", "py", "pz", "energy")], "p4", axis=2)
    outputs = [
        ("class_scores", TensorProto.FLOAT, [len(CLASSES)]),
        ("charge", TensorProto.INT64, []),
        ("p4", TensorProto.FLOAT, [4]),
        ("weight", TensorProto.FLOAT, []),
    ][: 3 if older else 4]
    if latents:
        constants["first"] = np.arange(latents)
        add("Gather", ["features", "first"], "first_features", axis=2)
        add("Unsqueeze", ["real_float", "last"], "real_column")
        add("Mul", ["first_features", "real_column"], "latents")
        outputs.append(("latents", TensorProto.FLOAT, [latents]))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [
            helper.make_tensor_value_info(
                "features", TensorProto.FLOAT, ["batch", "elements", len(ELEMENTS["track"])]
            ),
            helper.make_tensor_value_info("element_type", TensorProto.INT64, ["batch", "elements"]),
        ],
        [
            helper.make_tensor_value_info(name, kind, ["batch", "elements", *columns])
            for name, kind, columns in outputs
        ],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    described = {
        "elements": ELEMENTS,
        "classes": CLASSES,
        "presence_threshold": PRESENCE_THRESHOLD,
    }
    described = described if metadata is None else metadata
    helper.set_model_props(model, {key: json.dumps(value) for key, value in described.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path
