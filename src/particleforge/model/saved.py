"""Trained networks in files: weights with everything needed to use them.

Format (``torch.save`` of plain values): ``weights``, ``model`` (its settings), ``inputs``
(``ModelInputs``), ``training`` (settings), ``step``, ``valid_loss``, ``provenance``, and
``format``, which tells apart files of equal shapes whose weights mean different things. Reading a
file never runs code that it holds (``deserialise``).
"""

import io
import sys
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from particleforge.artefacts import atomic_output
from particleforge.config.model import ModelConfig
from particleforge.errors import UserError
from particleforge.model.inputs import ModelInputs
from particleforge.model.network import ParticleFlowNetwork
from particleforge.stored import check_regular, refuse_kind

# 1: rows of query_key_value by kind, then head; 2: by head, then kind; 3: with energy shares
FORMAT = 3
KIND = "model"
_AGAIN = "put the file back from a copy, or delete it and run again"


def serialise(content: Any) -> bytes:
    """Return plain ``content`` in torch's format.

    Equal content gives equal bytes, whatever its history or file name.
    """
    buffer = io.BytesIO()
    torch.save(_without_identity(content), buffer)
    return buffer.getvalue()


def deserialise(content: bytes, path: Path) -> Any:
    """Return what ``serialise`` made.

    A pickle of anything else, which could run code when it is loaded, is a UserError, and so are
    bytes that their checksums in the archive do not fit, which torch does not look at.
    """
    if damaged := _damaged(content):
        raise UserError(f"{path}: {damaged} does not match its checksum; {_AGAIN}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on forms of pickle that are refused a moment later
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise UserError(
            f"{path}: refused: it holds other things than tensors and plain values, which could run"
            " code; delete it, then run again"
        ) from error


def _damaged(content: bytes) -> str | None:
    """Return the first part of an archive that does not fit its checksum, None if all do."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(content))
    except Exception:  # no archive, or half of one, which torch says
        return None
    with archive:
        try:
            damaged = archive.testzip()
        except Exception:  # a part does not lie where the archive says; torch reads what lies there
            return "a part"
        # torch writes none, and takes a part that claims to be a folder for an empty one
        claims = (part.filename for part in archive.infolist() if part.external_attr)
        return damaged or next(claims, None)


def _without_identity(content: Any) -> Any:
    """Rebuild containers and intern strings, so that equal contents make equal pickles.

    Pickle writes a second reference to the *same* object in another way.
    """
    if isinstance(content, dict):
        return {_without_identity(key): _without_identity(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return type(content)(_without_identity(value) for value in content)
    return sys.intern(content) if type(content) is str else content


def save_model(path: Path, content: dict[str, Any]) -> None:
    """Write a trained network atomically.

    ``content`` has the keys of the module's docstring but ``format``.
    """
    with atomic_output(path) as temporary:
        temporary.write_bytes(serialise({**content, "format": FORMAT, "kind": KIND}))


def check_format(content: dict[str, Any], path: Path) -> None:
    """Raise a UserError for a trained network whose weights mean something else here."""
    found = content.get("format", 1)
    if found != FORMAT:
        raise UserError(
            f"{path}: a model of format {found}, whose weights mean something else in format"
            f" {FORMAT}; train it again"
        )


def check_weights(weights: Mapping[str, torch.Tensor], path: Path) -> None:
    """Raise a UserError if a weight is NaN or infinite: what follows would be silently wrong."""
    for name, values in weights.items():
        if bad := int((~torch.isfinite(values)).sum()):
            raise UserError(
                f"{path}: weights.{name}: {bad} of {values.numel()} values are not finite; train"
                " the model again"
            )


def load_model(path: Path) -> tuple[ParticleFlowNetwork, dict[str, Any]]:
    """Return the network in evaluation mode, on the CPU, and the file's other content.

    A broken file is a UserError.
    """
    try:
        check_regular(path)
        content: dict[str, Any] = deserialise(path.read_bytes(), path)
        inputs = ModelInputs(**content["inputs"])
        inputs.check(path)
        network = ParticleFlowNetwork(ModelConfig(**content["model"]), inputs)
        check_format(content, path)
        if content.get("kind", KIND) != KIND:  # a model of an older version tells none
            refuse_kind(path, content["kind"], [KIND], "give the best.pt of a training")
        check_weights(content["weights"], path)
        network.load_state_dict(content.pop("weights"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; train a model first") from None
    except UserError:
        raise
    except Exception as error:  # torch raises many kinds for damaged and foreign files
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        raise UserError(
            f"{path}: not a model of this package ({reason}); rerun train_model"
        ) from error
    return network.eval(), content
