"""Weights of kept sessions: calibrated to the items' counts. No JVM."""

from __future__ import annotations

import numpy as np
import pytest

from prune_lib.weights import calibrated


def sampled(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Sessions of Zipf items, of which those with rare items are kept far more often."""
    rng = np.random.default_rng(seed)
    popularity = 1 / (np.arange(200) + 3.0)
    popularity /= popularity.sum()
    sessions = [np.unique(rng.choice(200, rng.integers(1, 7), p=popularity)) for _ in range(4000)]
    counts = np.bincount(np.concatenate(sessions), minlength=200)
    chance = [min(1.0, 30 / counts[s].min()) for s in sessions]
    kept = [s for s, c in zip(sessions, chance, strict=True) if rng.random() < c]
    return np.concatenate(kept), np.array([s.size for s in kept]), counts, len(sessions)


@pytest.mark.parametrize("seed", range(3))
def test_weighted_counts_are_the_inputs(seed: int) -> None:
    item, lengths, counts, n = sampled(seed)
    weight, error = calibrated(item, lengths, counts, n)
    assert weight.sum() == pytest.approx(n) and weight.min() >= 1
    row = np.repeat(np.arange(lengths.size), lengths)
    found = np.bincount(item, weights=weight[row], minlength=200)
    there = found > 0
    assert error == pytest.approx(np.abs(found - counts)[there].sum() / counts[there].sum())
    equal = np.bincount(item, minlength=200) * n / lengths.size
    uncalibrated = np.abs(equal - counts)[there].sum() / counts[there].sum()
    assert error < 0.1 and error < 0.6 * uncalibrated


def test_all_sessions_weigh_one() -> None:
    item, lengths = np.array([0, 1, 1, 2]), np.array([2, 1, 1])
    weight, error = calibrated(item, lengths, np.array([1, 2, 1]), 3)
    assert weight == pytest.approx(np.ones(3)) and error == 0


def test_what_cannot_be_met_stays_an_honest_error() -> None:
    """One session has to stand for ten of one item and for two of another."""
    weight, error = calibrated(np.array([0, 1]), np.array([2]), np.array([10, 2]), 10)
    assert weight.tolist() == [10.0] and error == pytest.approx(8 / 12)
