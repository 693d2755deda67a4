import time

import pytest

from prune_lib.evaluation.stopwatch import Stopwatch


@pytest.mark.parametrize(
    ("device", "wall", "processor", "expected"),
    [
        ("cpu", 30.0, 20.0, 20.0),  # another process had the core for ten of them
        ("cpu", 20.0, 38.0, 20.0),  # two threads
        ("cuda", 30.0, 2.0, 30.0),  # the GPU worked, this process waited
    ],
)
def test_a_busy_machine_costs_a_training_nothing(monkeypatch, device, wall, processor, expected):
    clocks = {"wall": 100.0, "processor": 7.0}
    monkeypatch.setattr(time, "perf_counter", lambda: clocks["wall"])
    monkeypatch.setattr(time, "process_time", lambda: clocks["processor"])
    watch = Stopwatch()
    clocks["wall"] += wall
    clocks["processor"] += processor
    assert watch.seconds(device) == expected
