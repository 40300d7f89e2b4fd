"""Stage ``export_onnx``: the network as an ONNX model, from raw features to physical particles.

Inputs -> outputs: ``best.pt``, the valid and the test split of the shards -> ``model.onnx`` (inputs
``features``, ``element_type``; outputs ``class_scores``, ``charge``, ``p4``, ``weight``, with
``export.latents`` also ``latents``; see ``model.decode``), ``parity.json``, a model card.

The model carries, as JSON strings in its ``metadata_props``: ``elements`` and ``classes`` as in the
manifest, ``units``, ``normalisation``, ``presence_threshold`` (see ``threshold``), ``provenance``,
``opset``, ``kind``, and ``sha256``, the checksum of the file with zeros in its place. The
exporter's notes on source files are removed, so that the bytes depend on neither folder nor
machine.

Invariant: no model is written that differs from torch by more than the tolerances.
"""

import contextlib
import dataclasses
import io
import json
import logging
import math
import warnings
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from onnx import ModelProto, checker, helper

from particleforge.artefacts import atomic_output, write_json, write_text
from particleforge.config.reconstruction import ExportConfig
from particleforge.config.settings import ExportSettings
from particleforge.errors import UserError
from particleforge.export.files import ParityFile
from particleforge.export.model_card import render_card
from particleforge.export.parity import (
    Parity,
    compare,
    events_per_second,
    parity_events,
)
from particleforge.export.threshold import presence_threshold
from particleforge.model.decode import Decoder
from particleforge.model.inputs import index_files, read_manifest, split_folders
from particleforge.model.saved import load_model
from particleforge.provenance.record import Provenance
from particleforge.stored import NO_SEAL, SEAL, sealed

log = logging.getLogger(__name__)
_UNITS = {"class_scores": "probability", "charge": "e", "p4": "GeV", "weight": "", "latents": ""}


def export_onnx(
    settings: ExportSettings,
    *,
    detector: str,
    checkpoint: Path,
    manifest: Path,
    onnx: Path,
    parity: Path,
    model_card: Path,
) -> None:
    """Export the network, compare it with torch on real events; write model, comparison and card.

    ``detector`` is the name that the card gives.
    """
    network, saved = load_model(checkpoint)
    network.inputs.check_same(manifest, checkpoint)
    decoder = Decoder(network, settings.export.latents).eval()
    made = Provenance.of(
        "export_onnx",
        settings.plain(),
        [checkpoint, *index_files(manifest)],
        glanced_at=split_folders(manifest, "valid", "test"),
    )
    threshold = presence_threshold(decoder, manifest, settings.export.threshold_events)
    content = convert(
        decoder, settings.export.opset, threshold, {**made.plain(), "training": saved["provenance"]}
    )
    session = make_session(content)
    events = parity_events(manifest, network.inputs, settings.export.parity_events)
    found = compare(decoder, session, events, settings.export.score_tolerance)
    check(found, settings.export)
    log.info(
        "exported model equals torch: scores to %.1e, momenta to %.1e",
        found.score_difference,
        found.momentum_difference,
    )
    with atomic_output(onnx) as temporary:
        temporary.write_bytes(content)
    report: dict[str, Any] = {
        name: value for name, value in dataclasses.asdict(found).items() if value is not None
    }
    report |= {
        "kind": ParityFile.KIND,
        "presence_threshold": threshold,
        "score_tolerance": settings.export.score_tolerance,
        "momentum_tolerance": settings.export.momentum_tolerance,
        "events_per_s_one_thread": events_per_second(decoder, session, events),
        "file_size_bytes": len(content),
        "provenance": made.plain(),
    }
    write_json(parity, report)
    n_parameters = sum(parameter.numel() for parameter in network.parameters())
    described = read_manifest(manifest)
    card = render_card(
        settings, detector, saved, network.inputs, described, found, threshold, n_parameters
    )
    write_text(model_card, card)
    made.record(onnx, parity, model_card)


def convert(decoder: Decoder, opset: int, threshold: float, made: dict[str, Any]) -> bytes:
    """Return the decoder as the bytes of an ONNX model with dynamic batch and elements.

    ``threshold`` becomes its presence threshold, ``made`` its provenance.
    """
    inputs = decoder.network.inputs
    # sizes other than 0 and 1, which the exporter would take for constants
    example = (torch.ones(2, 3, inputs.n_features), torch.tensor([[1, 2, 1], [2, 1, 0]]))
    batch, elements = torch.export.Dim("batch"), torch.export.Dim("elements")
    for talkative in ("onnx_ir", "onnxscript", "torch.onnx"):
        logging.getLogger(talkative).setLevel(logging.ERROR)
    # the exporter prints its progress
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            decoder,
            example,
            dynamo=True,
            opset_version=opset,
            input_names=["features", "element_type"],
            output_names=list(decoder.output_names),
            dynamic_shapes=({0: batch, 1: elements}, {0: batch, 1: elements}),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _forget_sources(model)
    units = {
        name: {f["name"]: f.get("unit", "") for f in features}
        for name, features in inputs.elements.items()
    }
    described = {
        "elements": inputs.elements,
        "classes": inputs.classes,
        "units": {**units, **{name: _UNITS[name] for name in decoder.output_names}},
        "normalisation": inputs.normalisation,
        "presence_threshold": threshold,
        "provenance": made,
        "opset": opset,
        "kind": "onnx_model",
        SEAL: NO_SEAL,
    }
    properties = {name: json.dumps(value, sort_keys=True) for name, value in described.items()}
    helper.set_model_props(model, properties)
    checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return sealed(content)


def _forget_sources(model: ModelProto) -> None:
    """Remove the exporter's stack traces and other notes on where each node comes from."""
    del model.metadata_props[:]
    graphs = [model.graph, *model.functions]
    for graph in graphs:
        del graph.metadata_props[:]
        for part in (*graph.node, *graph.value_info):
            del part.metadata_props[:]
            part.doc_string = ""
    for part in (*model.graph.input, *model.graph.output, *model.graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""


def make_session(content: bytes) -> onnxruntime.InferenceSession:
    """Return a session on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def check(found: Parity, config: ExportConfig) -> None:
    """Raise a UserError that names the worst event if a difference exceeds its tolerance."""
    gates: list[tuple[str, float, float, str | None, str]] = [
        (
            "class scores",
            found.score_difference,
            config.score_tolerance,
            found.score_worst,
            "export.score_tolerance",
        ),
        (
            "momenta",
            found.momentum_difference,
            config.momentum_tolerance,
            found.momentum_worst,
            "export.momentum_tolerance",
        ),
        (
            "weights",
            found.weight_difference,
            config.score_tolerance,
            found.weight_worst,
            "export.score_tolerance",
        ),
        ("charges", found.charges_that_differ, 0, found.charge_worst, "export.score_tolerance"),
    ]
    if found.latent_difference is not None:
        gates.append(
            (
                "latents",
                found.latent_difference,
                config.score_tolerance,
                found.latent_worst,
                "export.score_tolerance",
            )
        )
    for what, difference, tolerance, where, key in gates:
        if math.isnan(difference) or difference > tolerance:
            raise UserError(
                f"exported model: {what} differ from torch by {difference:.3g} (allowed"
                f" {tolerance:g}) in {where}; try another export.opset, or raise {key} if the"
                " difference is acceptable"
            )
