"""Choose the reader of a file by its content.

Inputs -> outputs: a ROOT file and the dataset stage's settings -> chunks of ``RawEvents``. A file
with a tree ``Delphes`` and none named ``events`` is Delphes output; anything else goes to the
EDM4hep reader, which says in one line what is wrong with what it cannot read.
"""

from collections.abc import Iterator
from pathlib import Path

import uproot

from particleforge.config.settings import DatasetSettings
from particleforge.delphes import reader as delphes
from particleforge.delphes.rootfile import TREE
from particleforge.edm4hep import reader as edm4hep
from particleforge.edm4hep.raw_events import RawEvents


def read_chunks(path: str | Path, settings: DatasetSettings) -> Iterator[RawEvents]:
    """Yield the events that the settings want of a file, chunk by chunk.

    A chunk has ``settings.dataset.chunk_events`` events.

    A file that cannot be used is a UserError.
    """
    n_events = settings.dataset.chunk_events
    n_events_max = settings.files.events_per_file_max if settings.files else None
    truth = settings.dataset.reads_truth
    if is_delphes(path):
        return delphes.read_chunks(
            path,
            settings.delphes,
            settings.b_field_tesla,
            settings.calorimeter.ecal,
            n_events,
            n_events_max,
            truth=truth,
        )
    return edm4hep.read_chunks(path, settings.collections, n_events, n_events_max, truth=truth)


def is_delphes(path: str | Path) -> bool:
    """Tell whether a file is Delphes output; a file that cannot be opened is not."""
    try:
        with uproot.open(path) as file:
            trees = {key.split(";")[0] for key in file.keys(recursive=False)}
    except Exception:
        # uproot raises whatever broken bytes lead it to; the next reader names the fault
        return False
    return TREE in trees and "events" not in trees
