"""The bootstrap over sessions: it covers the truth where one over cases does not; degenerate data."""

from __future__ import annotations

import math

import numpy as np
import pytest

from prune_lib.evaluation.intervals import Interval, across_seeds, difference, interval, relative


def clustered(random: np.random.Generator, sessions: int = 120) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cases, hits of a and hits of b, by session: sessions are easy (a 0.9, b 0.7) or hard (0.1, 0.1)."""
    counts = random.integers(1, 15, sessions)
    easy = random.random(sessions) < 0.5
    return (
        counts,
        random.binomial(counts, np.where(easy, 0.9, 0.1)),
        random.binomial(counts, np.where(easy, 0.7, 0.1)),
    )


def covers(found: Interval, truth: float) -> bool:
    """Whether the truth is within the bounds."""
    return found.low <= truth <= found.high


def test_it_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    truths = {"a": 0.5, "a - b": 0.1, "a / b": 0.5 / 0.4, "a by case": 0.5}
    hits = dict.fromkeys(truths, 0)
    for seed in range(200):
        counts, a, b = clustered(random)
        # The same cases as if each were a session of its own.
        alone = np.concatenate([np.repeat([1, 0], [k, n - k]) for k, n in zip(a, counts, strict=True)])
        found = {
            "a": interval(counts, a, resamples=300, seed=seed),
            "a - b": difference(counts, a, b, resamples=300, seed=seed),
            "a / b": relative(counts, a, b, resamples=300, seed=seed),
            "a by case": interval(np.ones_like(alone), alone, resamples=300, seed=seed),
        }
        for name, truth in truths.items():
            hits[name] += covers(found[name], truth)
    # 95 % of 200 is 190, with a standard deviation of 3.
    assert all(178 <= hits[name] <= 199 for name in ("a", "a - b", "a / b")), hits
    assert hits["a by case"] < 140, hits


def test_pairing_makes_the_difference_s_interval_narrower() -> None:
    counts, a, b = clustered(np.random.default_rng(1), 400)
    paired = difference(counts, a, b)
    one, other = interval(counts, a, seed=1), interval(counts, b, seed=2)
    unpaired = math.hypot(one.high - one.low, other.high - other.low)
    assert paired.high - paired.low < 0.7 * unpaired
    assert paired.mean == pytest.approx(one.mean - other.mean)
    assert relative(counts, a, b).mean == pytest.approx(one.mean / other.mean)


def test_equal_seeds_give_equal_bounds_and_levels_nest() -> None:
    counts, a, _ = clustered(np.random.default_rng(2))
    assert interval(counts, a) == interval(counts, a)
    assert interval(counts, a) != interval(counts, a, seed=1)
    wide, narrow = interval(counts, a, level=0.99), interval(counts, a, level=0.5)
    assert wide.low < narrow.low < narrow.mean < narrow.high < wide.high


def test_runs_of_several_seeds_are_averaged_by_session() -> None:
    counts, a, b = clustered(np.random.default_rng(3))
    assert interval(counts, np.stack([a, b])) == interval(counts, (a + b) / 2)
    # The number of runs may differ between the two that are compared.
    assert difference(counts, np.stack([a, b, a, b]), a) == difference(counts, (a + b) / 2, a)


def test_sessions_without_a_case_do_not_matter() -> None:
    counts, a, b = clustered(np.random.default_rng(4))
    zero = np.zeros(50, dtype=counts.dtype)
    padded = [np.concatenate([x, zero]) for x in (counts, a, b)]
    assert interval(*padded[:2]) == interval(counts, a)
    assert relative(*padded) == relative(counts, a, b)


@pytest.mark.filterwarnings("error")
def test_degenerate_data() -> None:
    none, one = np.zeros(3, dtype=np.int64), np.array([4])
    some = np.array([2, 3, 4])
    assert interval(some, none) == Interval(0.0, 0.0, 0.0)
    assert difference(some, some, some) == Interval(0.0, 0.0, 0.0)
    single = interval(one, np.array([1]))
    assert single.mean == 0.25 and math.isnan(single.low) and math.isnan(single.high)
    for undefined in (interval(none, none), relative(some, some, none), interval(none[:0], none[:0])):
        assert all(math.isnan(x) for x in (undefined.mean, undefined.low, undefined.high))
    # One session has all of b's hits: many resamples lack it.
    rare = relative(some, some, np.array([0, 0, 3]))
    assert rare.mean == 3 and math.isnan(rare.low) and math.isnan(rare.high)


def test_across_seeds() -> None:
    mean, deviation = across_seeds([0.2, 0.4, 0.6])
    assert (mean, deviation) == (pytest.approx(0.4), pytest.approx(0.2))
    mean, deviation = across_seeds([0.3])
    assert mean == 0.3 and math.isnan(deviation)
