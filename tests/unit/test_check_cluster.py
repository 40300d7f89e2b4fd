"""What two sides make of files that they exchange, clocks that disagree included."""

import os
import threading

import pytest

from particleforge.orchestration.cluster import probe
from particleforge.orchestration.cluster.exchange import (
    LOGIN_FILE,
    Exchange,
    answer,
    ask,
    clock_skew,
)


@pytest.mark.parametrize(
    ("ping_s", "pong_s", "round_trip_s", "skew_s"),
    [
        (100.0, 100.2, 0.5, 0.0),
        (100.0, 100.5, 0.5, 0.0),
        (100.0, 103.5, 0.5, 3.0),
        (100.0, 98.0, 0.5, -2.0),
    ],
)
def test_skew_is_what_lies_outside_the_round_trip(ping_s, pong_s, round_trip_s, skew_s):
    assert clock_skew(ping_s, pong_s, round_trip_s) == pytest.approx(skew_s)


def test_exchange_of_two_sides(tmp_path):
    (tmp_path / LOGIN_FILE).touch()
    over = threading.Event()

    def login():
        while not over.wait(0.01):
            answer(tmp_path)

    thread = threading.Thread(target=login)
    thread.start()
    try:
        seen = ask(tmp_path, "job", 10)
    finally:
        over.set()
        thread.join()
    assert seen.round_trip_s < 5
    assert abs(seen.skew_s) < 0.5


def test_nobody_answers(tmp_path):
    (tmp_path / LOGIN_FILE).touch()
    assert ask(tmp_path, "job", 0.1) == Exchange(sees_login=True)
    assert probe.shared_folder("job", tmp_path, 0.1)[0].state == "WRONG"


@pytest.mark.parametrize("exists", [True, False])
def test_folder_of_another_machine(tmp_path, exists):
    folder = tmp_path if exists else tmp_path / "absent"
    assert ask(folder, "job", 0.1) == Exchange(sees_login=False)
    assert (
        "does not see what the login node wrote" in probe.shared_folder("job", folder, 0.1)[0].seen
    )


@pytest.mark.fault("clocks of nodes disagree")
@pytest.mark.parametrize(("shift_s", "word"), [(30.0, "later"), (-30.0, "earlier")])
def test_clocks_that_disagree(tmp_path, shift_s, word):
    (tmp_path / LOGIN_FILE).touch()
    answer_file = tmp_path / "job.pong"
    answer_file.touch()
    now = answer_file.stat().st_mtime
    os.utime(answer_file, (now + shift_s, now + shift_s))
    finding = probe.shared_folder("job", tmp_path, 10)[-1]
    assert (finding.what, finding.state) == ("clocks", "WRONG")
    assert f"s {word} than those of" in finding.seen
