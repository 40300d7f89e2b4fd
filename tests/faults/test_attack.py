"""A few attacks of every kind of ``benchmarks/attack.py``: no traceback, no silent change."""

import os
from contextlib import closing, nullcontext

import pytest

from particleforge.errors import UserError

from .attack_config import Configuration
from .attack_kills import Kills
from .attack_server import Servers
from .attack_stored import Checkpoints, Json, Onnx, Parquet
from .attacks import REFUSED, SILENT, SURVIVED, TRACEBACK, count, outcome

ATTEMPTS = {Configuration: 25, Parquet: 8, Json: 18, Onnx: 15, Checkpoints: 16, Servers: 15}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*ATTEMPTS, Kills])
def test_no_attack_is_a_traceback_or_a_silent_change(kind, tmp_path, monkeypatch):
    if kind is not Kills:
        monkeypatch.setattr(os, "fsync", lambda _: None)
    attacker = kind(tmp_path)
    with closing(attacker) if hasattr(attacker, "close") else nullcontext():
        found = count(attacker.attempt, range(ATTEMPTS.get(kind, 3)))
    assert found.failures == {}
    assert found.outcomes[REFUSED] > 0 or kind is Kills


def test_what_an_attempt_came_to():
    def fail(error):
        def use():
            raise error

        return outcome(use)[0]

    assert fail(UserError("a.root: damaged; fetch it again")) == REFUSED
    assert fail(PermissionError(13, "no", "a.root")) == REFUSED
    assert fail(OSError(5, "failing disk")) == TRACEBACK
    assert fail(KeyError("a")) == TRACEBACK
    assert outcome(lambda: "")[0] == SURVIVED
    assert outcome(lambda: "its checksum is another")[0] == SILENT
