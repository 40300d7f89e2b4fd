"""Kills at any moment of a stage: what has a file's name is whole, and the next run is as if
nothing had been.
"""

import os
import random
import shutil
import signal
import time
from pathlib import Path

from particleforge.artefacts import write_json
from particleforge.provenance.record import RECORD_SUFFIX, Provenance, checksum, read_record
from particleforge.tables import parquet

from ..unit.checked_data import write_dataset_shard
from ..unit.synthetic import synthetic_events
from .attacks import outcome


class Kills:
    """Attempts on a stage that writes a table, JSON and records, in forks of this process.

    Real stages are killed in ``tests/workflow/test_kill.py``; a fork in which awkward computes
    would take seconds.
    """

    def __init__(self, folder: Path) -> None:
        self.dataset = write_dataset_shard(
            folder / "dataset/qq/00000.parquet", synthetic_events(4, 5, mean_particles=3)
        )
        self.folder = folder / "made"
        self._run()
        began = time.perf_counter()
        self._run()
        self.seconds = time.perf_counter() - began
        self.sound = self._files()

    def _run(self) -> None:
        made = Provenance.of("stage", {"seed": 1}, [self.dataset])
        types, outputs = parquet.DATASET_SCHEMA, [self.folder / "a.parquet", self.folder / "a.json"]
        parquet.write_table(outputs[0], parquet.iter_tables(self.dataset), types, made.plain())
        write_json(outputs[1], made.plain())
        made.record(*outputs)

    def _files(self) -> dict[str, bytes]:
        """Return what is there, but records, in which times stand, and what nobody reads."""
        return {
            path.name: path.read_bytes()
            for path in self.folder.iterdir()
            if not path.name.startswith(".") and not path.name.endswith(RECORD_SUFFIX)
        }

    def attempt(self, number: int) -> tuple[str, str]:
        rng = random.Random(f"kill {number}")
        shutil.rmtree(self.folder, ignore_errors=True)
        child = os.fork()
        if child == 0:
            try:
                self._run()
            finally:
                os._exit(0)
        time.sleep(rng.uniform(0, 1.5) * self.seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return outcome(self._look)

    def _look(self) -> str:
        if self.folder.is_dir():
            for name, content in self._files().items():
                if content != self.sound[name]:
                    return f"{name} is not whole"
            for record in self.folder.glob(f"*{RECORD_SUFFIX}"):
                path = Path(str(record).removesuffix(RECORD_SUFFIX))
                if path.exists() and read_record(record)["output"]["sha256"] != checksum(path):
                    return f"{record.name} tells of another file"
            if (self.folder / "a.parquet").exists():
                parquet.read_table(self.folder / "a.parquet")
        self._run()
        left = [path.name for path in self.folder.iterdir() if path.name.endswith(".tmp")]
        if left:
            return f"{left[0]} is left"
        return "" if self._files() == self.sound else "the next run makes another file"
