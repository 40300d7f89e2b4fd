"""Attacks on what the package reads: how many attempts are refused, survived, or fail it.

    python benchmarks/attack.py [--attempts 40] [--first 0] [--kind configuration ...]

``--attempts`` is the number for each kind; an attempt follows from kind and number alone, so that
``--first N --attempts 1`` repeats one. Kinds:

| kind | what is changed |
|---|---|
| configuration | a value, key or byte of the shipped YAML files, or a ``--set`` |
| root | EDM4hep and Delphes files: bytes, leaves, values |
| parquet, json, onnx, checkpoints | files that stages wrote: bytes, keys, values, rows, records |
| server | answers to downloads and to listings of Zenodo records |
| kills | SIGKILL at any moment of a stage that writes |

*Refused* is one line, *survived* a result that is right, or told of in a warning. The failures are
*tracebacks*, and *silent* changes: a checksum, schema, unit or conservation rule that the file
carries is violated, and nobody says so. Exit status 1 if there is any. The last line is one JSON
object of counts. The attacks themselves are ``tests/faults/attack_*.py``.
"""

import argparse
import importlib
import json
import logging
import sys
import tempfile
import warnings
from contextlib import closing, nullcontext
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = {
    "configuration": ("attack_config", "Configuration"),
    "root": ("attack_root", "Root"),
    "parquet": ("attack_stored", "Parquet"),
    "json": ("attack_stored", "Json"),
    "onnx": ("attack_stored", "Onnx"),
    "checkpoints": ("attack_stored", "Checkpoints"),
    "server": ("attack_server", "Servers"),
    "kills": ("attack_kills", "Kills"),
}
COLUMNS = ("attempts", "refused", "survived", "tracebacks", "silent")


def attack(kind: str, numbers: range) -> dict[str, int]:
    """Make the attempts of a kind, print their failures and return the counts."""
    module, name = KINDS[kind]
    attacks = importlib.import_module("tests.faults.attacks")
    with tempfile.TemporaryDirectory() as folder:
        attacker = getattr(importlib.import_module(f"tests.faults.{module}"), name)(Path(folder))
        with closing(attacker) if hasattr(attacker, "close") else nullcontext():
            found = attacks.count(attacker.attempt, numbers)
    for number, said in found.failures.items():
        print(f"{kind} {number}: {said}", file=sys.stderr)
    counts: dict[str, int] = found.plain()
    return counts


def main() -> None:
    """Make the attempts and print the counts."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--attempts", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    arguments = parser.parse_args()
    sys.path.insert(0, str(ROOT))
    warnings.simplefilter("ignore")
    logging.getLogger("particleforge").setLevel(logging.WARNING)
    numbers = range(arguments.first, arguments.first + arguments.attempts)
    counts = {}
    print("".join(f"{column:>14}" for column in ("kind", *COLUMNS)))
    for kind in arguments.kind or KINDS:
        counts[kind] = attack(kind, numbers)
        print(f"{kind:>14}" + "".join(f"{counts[kind][name]:14d}" for name in COLUMNS), flush=True)
    total = {name: sum(found[name] for found in counts.values()) for name in COLUMNS}
    print(json.dumps({**total, "kinds": counts}))
    sys.exit(1 if total["tracebacks"] + total["silent"] else 0)


if __name__ == "__main__":
    main()
