"""Event displays show lists of particles and tell sums."""

from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import pytest

from particleforge.report import displays
from particleforge.tables import parquet

from .validation_inputs import many_events, validate_settings, visible, write_pair


def test_faint_candidates_are_not_drawn_but_add_their_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[str, str] = {}
    monkeypatch.setattr(displays, "annotate", lambda axes, name, text: told.update({name: text}))
    events = many_events(3, seed=4)
    found = visible(events)
    weight = ak.where(ak.local_index(found.px) % 2 == 1, np.float32(0.25), np.float32(1))
    pair = write_pair(tmp_path, events, ak.with_field(found, weight, "weight"))
    classes: Any = validate_settings().particle_classes
    displays.draw_displays([pair[0]], [pair[1]], 1, classes)
    drawn = parquet.read_table(pair[1], ["event_id"]).event_id.to_list()
    event = next(i for i in range(3) if events.event_id[i] in drawn)
    energy = found.energy[event]
    n = (len(energy) + 1) // 2
    total = ak.sum(energy * weight[event])
    assert n < len(energy)
    assert told[displays.LABELS["mlpf"]] == f"{n} particles, {total:.1f} GeV"
    assert told[displays.LABELS["truth"]] == f"{len(energy)} particles, {ak.sum(energy):.1f} GeV"
