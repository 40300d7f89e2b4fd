"""Files broken in many ways, and a process that builds datasets of them under limits of memory and
time, for ``test_fuzz_files``.

A *case* is (format, mutation, number): what is done follows from it alone, so that a case that
failed can be repeated by hand:

    python -c "from tests.faults.fuzzing import repeat; \\
        print(*repeat('edm4hep-ttree', 'flipped', 7))"
"""

import logging
import multiprocessing
import resource
import struct
import tempfile
import traceback
import warnings
from collections.abc import Callable
from functools import cache
from multiprocessing.connection import Connection
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from particleforge.checks.statistics import shard_statistics
from particleforge.config.dataset import DatasetConfig
from particleforge.dataset.build import build_dataset
from particleforge.errors import UserError
from particleforge.tables.parquet import DATASET_SCHEMA, read_table

from ..unit.dataset_settings import NO_LIMITS, dataset_settings
from ..unit.delphes_events import write_delphes
from ..unit.edm4hep_events import leaves_of, write_leaves
from ..unit.test_delphes import EVENTS as DELPHES_EVENTS
from ..unit.test_edm4hep_layouts import sound_events

Case = tuple[str, str, int]
FORMATS = {"edm4hep-rntuple": "clic", "edm4hep-ttree": "clic", "delphes": "cms_delphes"}
SECONDS = 120  # for one file of two events, on a machine that has other work
MEMORY_BYTES = 3 << 30  # beyond what the process has when it starts
TOLERANT = DatasetConfig(**NO_LIMITS)
HTML = (
    b"<!DOCTYPE html><html><head><title>Sign in</title></head><body>Please sign in to go"
    b" on.</body></html>\n"
)


def content_of(kind: str) -> dict:
    """Return what the sound file of a format holds: leaves, or the events of Delphes."""
    if kind == "delphes":
        return {
            "events": [
                {branch: [dict(one) for one in objects] for branch, objects in event.items()}
                for event in DELPHES_EVENTS
            ]
        }
    return leaves_of(sound_events(), modern=kind == "edm4hep-rntuple")


def write(kind: str, content: dict, path: Path) -> None:
    """Write a file of a format."""
    if kind == "delphes":
        write_delphes(path, content["events"], content.get("empty", ()))
    else:
        write_leaves(path, content, modern=kind == "edm4hep-rntuple")


@cache
def sound_bytes(kind: str) -> bytes:
    """Return the sound file of a format."""
    with tempfile.TemporaryDirectory() as folder:
        write(kind, content_of(kind), Path(folder) / "events.root")
        return (Path(folder) / "events.root").read_bytes()


# --- what is done to bytes ---


def _truncated(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    return sound[: len(sound) * number // 10 if number < 10 else int(rng.integers(len(sound)))]


def _used(sound: bytes, first: int, last: int) -> np.ndarray:
    """Return the places of a stretch whose bytes are not zero: what is zero is mostly room that
    nobody reads.
    """
    return first + np.flatnonzero(np.frombuffer(sound, np.uint8)[first:last])


def _flipped(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Change 1 to 8 bytes: anywhere, in the header, or in what comes last (keys, streamers,
    footer).
    """
    first, last = (
        (0, len(sound)),
        (0, 300),
        (len(sound) - min(len(sound) // 3, 4000), len(sound)),
    )[number % 3]
    changed = bytearray(sound)
    for place in rng.choice(_used(sound, first, last), rng.integers(1, 9)):
        changed[place] ^= int(rng.integers(1, 256))
    return bytes(changed)


def _overwritten(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Overwrite a stretch with zeros, ones, noise, or another stretch of the file."""
    length = int(rng.integers(4, 2000))
    first, other = rng.integers(0, len(sound) - length, 2)
    filling = (bytes(length), b"\xff" * length, rng.bytes(length), sound[other : other + length])[
        number % 4
    ]
    return sound[:first] + filling + sound[first + length :]


def _big_numbers(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Put an absurd number, as sizes and counts are, at a random place of the second half or the
    header.
    """
    value = (0x7FFFFFFF, 0xFFFFFFFF, 0x40000000 | 0x3FFFFFF0, 1 << 24)[number % 4]
    place = int(
        rng.choice(_used(sound, *((len(sound) // 2, len(sound) - 4) if number % 2 else (4, 300))))
    )
    return sound[:place] + struct.pack((">I", "<I")[number // 4 % 2], value) + sound[place + 4 :]


def _moved(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    """Leave out or double a stretch, so that all after it is elsewhere."""
    first, length = int(rng.integers(0, len(sound) - 64)), int(rng.integers(1, 64))
    return (
        sound[:first]
        + (sound[first : first + length] * 2 if number % 2 else b"")
        + sound[first + length :]
    )


def _no_root_file(sound: bytes, number: int, rng: np.random.Generator) -> bytes:
    return (
        b"",
        b"r",
        b"root",
        HTML,
        HTML * 100,
        rng.bytes(5000),
        b"root" + rng.bytes(5000),
        bytes(5000),
    )[number % 8]


BYTES: dict[str, tuple[int, Callable[[bytes, int, np.random.Generator], bytes]]] = {
    "truncated": (10, _truncated),
    "flipped": (48, _flipped),
    "overwritten": (24, _overwritten),
    "big numbers": (24, _big_numbers),
    "moved": (8, _moved),
    "no ROOT file": (8, _no_root_file),
}

# --- what is done to content ---


def _columns(content: dict) -> list:
    """Return the keys of all leaves: names, or (branch, member)."""
    if "events" not in content:
        return sorted(content)
    return sorted(
        {
            (branch, member)
            for event in content["events"]
            for branch, objects in event.items()
            for one in objects
            for member in one
        }
    )


def _change(
    content: dict, key, function: Callable[[list], list], dtype: type | None = None
) -> None:
    """Replace the values of a leaf, event by event."""
    if "events" not in content:
        values, old = content[key]
        content[key] = (function(values), dtype or old)
        return
    branch, member = key
    values = function(
        [[one[member] for one in event.get(branch, [])] for event in content["events"]]
    )
    for event, new in zip(content["events"], values, strict=True):
        for one, value in zip(event.get(branch, []), new, strict=False):
            one[member] = value


def _missing(content: dict, key) -> None:
    if "events" in content:
        for event in content["events"]:
            for one in event.get(key[0], []):
                one.pop(key[1], None)
    else:
        del content[key]


def _other_type(content: dict, key) -> None:
    """Write integers as floating-point numbers and the other way round."""
    integer = "events" in content or not np.issubdtype(content[key][1], np.integer)
    _change(
        content,
        key,
        lambda values: [[int(x) if integer and np.isscalar(x) else x for x in v] for v in values],
        np.int64 if integer else float,
    )


def _shorter(content: dict, key) -> None:
    """Take the last entry of the longest event from one leaf, which then disagrees with its
    neighbours.
    """

    def cut(values: list) -> list:
        longest = max(range(len(values)), key=lambda i: len(values[i]))
        return [v[:-1] if i == longest else v for i, v in enumerate(values)]

    _change(content, key, cut)


def _values(*choices: float) -> Callable[[dict, object], None]:
    """Return a mutation that puts these values, in turn, into every second entry."""

    def mutate(content: dict, key) -> None:
        integer = "events" not in content and np.issubdtype(content[key][1], np.integer)

        def put(values: list) -> list:
            return [
                [
                    choices[i % len(choices)] if i % 2 == 0 and np.isscalar(x) else x
                    for i, x in enumerate(v)
                ]
                for v in values
            ]

        if integer and not all(
            np.isfinite(x) and np.iinfo(content[key][1]).min <= x <= np.iinfo(content[key][1]).max
            for x in choices
        ):
            return _change(
                content, key, put, np.int64 if all(np.isfinite(x) for x in choices) else float
            )
        return _change(content, key, put)

    return mutate


CONTENT: dict[str, Callable[[dict, object], None]] = {
    "leaf missing": _missing,
    "leaf of another type": _other_type,
    "leaf shorter": _shorter,
    "values negative": _values(-1, -7),
    "values beyond": _values(1 << 30, 100),
    "values not finite": _values(np.nan, np.inf),
}
LEAVES_PER_MUTATION = 9  # of each format
TREES = ("no events", "another tree")


def mutations_of(kind: str) -> list[str]:
    """Return the mutations of content that a format knows.

    The objects of Delphes are written whole, so their members cannot differ in number.
    """
    return [mutation for mutation in CONTENT if kind != "delphes" or mutation != "leaf shorter"]


def cases() -> list[Case]:
    """Return all cases."""
    found = [
        (kind, mutation, number)
        for kind in FORMATS
        for mutation, (n, _) in BYTES.items()
        for number in range(n)
    ]
    for kind in FORMATS:
        mutations = mutations_of(kind)
        found += [
            (kind, mutation, number)
            for mutation in mutations
            for number in range(LEAVES_PER_MUTATION)
        ]
        found += [(kind, mutation, 0) for mutation in TREES]
    return found


def without_events(content: dict) -> dict:
    """Return the content of a file of the same leaves that holds no event."""
    if "events" in content:
        return {"events": [], "empty": content["events"]}
    return {leaf: ([], dtype) for leaf, (_, dtype) in content.items()}


def write_other_tree(path: Path) -> None:
    """Write a file of another tree."""
    with uproot.recreate(path) as file:
        file.mktree("Events", {"nMuon": "int32"}).extend({"nMuon": np.arange(3, dtype=np.int32)})


def mutated(case: Case, path: Path) -> None:
    """Write the file of a case."""
    kind, mutation, number = case
    rng = np.random.default_rng([number, *mutation.encode(), *kind.encode()])
    if mutation in BYTES:
        path.write_bytes(BYTES[mutation][1](sound_bytes(kind), number, rng))
    elif mutation == "another tree":
        write_other_tree(path)
    elif mutation == "no events":
        write(kind, without_events(content_of(kind)), path)
    else:
        content = content_of(kind)
        columns = _columns(content)
        CONTENT[mutation](
            content, columns[(number * len(columns) // LEAVES_PER_MUTATION + number) % len(columns)]
        )
        write(kind, content, path)


# --- what comes of it ---


def outcome(case: Case, folder: Path) -> tuple[str, str]:
    """Build the dataset of a case and say what came of it.

    ``refused`` and the line, ``same`` rows as from the sound file, ``other`` rows that are sound,
    too, or ``wrong``.
    """
    path, output = folder / "events.root", folder / "out.parquet"
    output.unlink(missing_ok=True)
    settings = dataset_settings(FORMATS[case[0]], dataset=TOLERANT)
    try:
        mutated(case, path)
    except Exception as error:  # the writer does not take everything
        return "not written", f"{type(error).__name__}: {error}"
    try:
        build_dataset(settings, [path], output)
    except UserError as error:
        if "\n" in str(error) or path.name not in str(error):
            return "wrong", f"says {error}"
        return ("wrong", "leaves an output") if output.exists() else ("refused", str(error))
    except BaseException:
        return "wrong", traceback.format_exc()
    statistics = shard_statistics(output, DATASET_SCHEMA)
    bad = [name for name, column in statistics["columns"].items() if column["not_finite"]]
    bad += [name for name, wrong in statistics["wrong"].items() if wrong]
    if bad or statistics["closure"] > 1e-5:
        return "wrong", f"rows that are not sound: {bad}, closure {statistics['closure']}"
    rows = read_table(output)
    return (
        ("same", "")
        if ak.array_equal(rows, sound_rows(case[0]), equal_nan=True)
        else ("other", f"{len(rows)} events")
    )


@cache
def sound_rows(kind: str) -> ak.Array:
    """Return the dataset of a format's sound file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "events.root"
        path.write_bytes(sound_bytes(kind))
        build_dataset(
            dataset_settings(FORMATS[kind], dataset=TOLERANT), [path], Path(folder) / "out.parquet"
        )
        return read_table(Path(folder) / "out.parquet")


def serve(connection: Connection) -> None:
    """Answer cases with their outcome until there are no more, within limits of memory."""
    warnings.simplefilter("ignore")
    logging.disable()
    for kind in FORMATS:
        sound_rows(kind)
    used = (
        int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        * resource.getpagesize()
    )
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_BYTES, resource.RLIM_INFINITY))
    with tempfile.TemporaryDirectory() as folder:
        connection.send(None)
        while (case := connection.recv()) is not None:
            connection.send(outcome(case, Path(folder)))


class Worker:
    """A process that builds datasets of mutated files.

    Killed and started anew when it does not answer in time.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._start()

    def _start(self) -> None:
        self._connection, other = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=serve, args=(other,), daemon=True
        )
        self._process.start()
        other.close()
        self._connection.recv()

    def ask(self, case: Case) -> tuple[str, str]:
        """Return the outcome of a case.

        ``hung`` after ``seconds``, ``died`` if the process is gone.
        """
        self._connection.send(case)
        try:
            if self._connection.poll(self.seconds):
                return self._connection.recv()
            said = "hung", f"no answer within {self.seconds} s"
        except EOFError:
            said = "died", "the process is gone"
        self._process.kill()
        self._process.join()
        self._start()
        return said

    def close(self) -> None:
        """End the process."""
        self._connection.send(None)
        self._process.join()
        self._connection.close()


def repeat(kind: str, mutation: str, number: int) -> tuple[str, str]:
    """Return the outcome of one case, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        return outcome((kind, mutation, number), Path(folder))
