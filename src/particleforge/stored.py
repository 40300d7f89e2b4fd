"""The one reader of JSON that the package itself wrote: typed, and trusted no more than a user's.

Inputs -> outputs: a file, or content that lay inside another one, and a model (``Stored``) beside
the code that writes it -> the content, held to the model. Files may have been edited, exchanged,
cut short or made by another version, so all that is wrong with one is a UserError: file, key,
remedy. Every file says its ``kind``, so that none is taken for another.
"""

import hashlib
import json
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from particleforge.errors import UserError

SEAL = "sha256"  # key of the checksum that a sealed file carries
NO_SEAL = "0" * 64  # stands in its place while the checksum is computed


class Stored(BaseModel):
    """What is read of a file of one kind; further keys are passed over.

    ``KIND`` is the value of its key ``kind``, ``REMEDY`` what brings a whole file back.
    """

    model_config = ConfigDict(extra="allow", frozen=True, allow_inf_nan=False)
    KIND: ClassVar[str]
    REMEDY: ClassVar[str]
    MAY_LACK_KIND: ClassVar[bool] = False  # what trainings of older versions go on with


_Model = TypeVar("_Model", bound=Stored)


def read_stored(path: Path, model: type[_Model]) -> _Model:
    """Return the content of a JSON file; one that is not of the model's kind is a UserError."""
    return held_to(model, read_json(path, model.REMEDY), path)


def read_json(path: Path, remedy: str) -> Any:
    """Return what a JSON file holds; one that is missing or damaged is a UserError."""
    try:
        check_regular(path)
        return json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); {remedy}") from error


def held_to(model: type[_Model], content: Any, path: Path, where: str = "") -> _Model:
    """Return ``content``, which was read from ``path``, if it is of the model's kind and form.

    ``where`` names a part of the file that the content is.
    """
    if not isinstance(content, dict):
        raise UserError(f"{path}: {where}holds no object with keys; {model.REMEDY}")
    if content.get("kind", model.KIND if model.MAY_LACK_KIND else None) != model.KIND:
        refuse_kind(path, content.get("kind"), [model.KIND], model.REMEDY)
    try:
        # as JSON, where a number is no text, nor a text one, but a list may be a tuple
        return model.model_validate_json(json.dumps(content), strict=True)
    except ValidationError as error:
        raise UserError(f"{path}: {where}{first_problem(error)}; {model.REMEDY}") from error


def first_problem(error: ValidationError) -> str:
    """Return the first key that does not fit, if it is one, and why."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key}: {first['msg']}" if key else str(first["msg"])


def refuse_kind(path: Path | str, found: Any, kinds: Sequence[str], remedy: str) -> NoReturn:
    """Raise the UserError for a file of another kind, or of an older version, which tells none."""
    expected = " or ".join(map(repr, kinds))
    if found is None:
        raise UserError(
            f"{path}: kind: missing, as an older version leaves it out, where {expected} is"
            f" expected; {remedy}"
        )
    raise UserError(f"{path}: kind: is {found!r} where {expected} is expected; {remedy}")


def check_regular(path: Path, *, may_lack: bool = False) -> None:
    """Refuse a named pipe or a device, which could be waited for without end."""
    if may_lack and not path.exists():
        return
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise UserError(f"{path}: no regular file, but a pipe or device; give a file")


def sealed(content: bytes) -> bytes:
    """Return content with its SHA-256 in the place of ``NO_SEAL``, which must occur once."""
    assert content.count(NO_SEAL.encode()) == 1
    return content.replace(NO_SEAL.encode(), hashlib.sha256(content).hexdigest().encode())


def check_seal(path: Path, seal: str | None) -> None:
    """Refuse a sealed file that was changed since; one of an older version has no seal."""
    if seal is None:
        return
    digest = seal.strip('"')
    content = path.read_bytes().replace(digest.encode(), NO_SEAL.encode())
    if hashlib.sha256(content).hexdigest() != digest:
        raise UserError(
            f"{path}: was changed since export_onnx wrote it: its content does not match the"
            " checksum in its metadata; export the model again"
        )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number that this package writes")
