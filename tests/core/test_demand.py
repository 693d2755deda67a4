"""Demand foreseen: sums against plain loops, and truths that were planted in the past."""

from __future__ import annotations

import numpy as np
import pytest

from prune_lib.demand import CUTS, HALF_LIVES, HORIZON, forecast, known_of, moved


def edges(seed: int, n: int = 500, items: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Items of sessions and the sessions' ages."""
    random = np.random.default_rng(seed)
    rows = [np.unique(random.integers(0, items, random.integers(1, 5))) for _ in range(n)]
    age = [np.full(len(row), (n - 1 - k) / (n - 1)) for k, row in enumerate(rows)]
    return np.concatenate(rows), np.concatenate(age)


@pytest.mark.parametrize("cut", [0.0, 0.05, 0.3, 1.0])
def test_what_is_known_is_what_plain_loops_count(cut):
    code, age = edges(0)
    found = known_of(code, age, 21, cut)
    for item in range(21):  # the last never comes
        since = [a - cut for c, a in zip(code, age, strict=True) if c == item and a >= cut]
        followed = [a for c, a in zip(code, age, strict=True) if c == item and cut - HORIZON <= a < cut]
        assert found[item, 0] == (round(min(since) * 2**30) if since else 2**31)
        assert found[item, 1] == len(since) and found[item, -1] == len(followed)
        for place, half_life in enumerate(HALF_LIVES, 2):
            amount = sum(round(np.exp(-a / half_life) * 2**32) for a in since)
            assert found[item, place] == amount


def test_parts_of_an_input_add_up():
    code, age = edges(1)
    half = np.random.default_rng(0).random(code.size) < 0.5
    whole, one, two = (known_of(code[s], age[s], 20, 0.1) for s in (slice(None), half, ~half))
    np.testing.assert_array_equal(whole[:, 1:], one[:, 1:] + two[:, 1:])
    np.testing.assert_array_equal(whole[:, 0], np.minimum(one[:, 0], two[:, 0]))


def shop(
    n: int = 40_000, items: int = 2_000, life: float = 0.15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clicks on items that come and go: each is on offer for a span of `life`, popular or not.

    Items of all clicks, their ages, and by item the clicks to expect in the next `HORIZON`.
    """
    random = np.random.default_rng(3)
    begins = random.uniform(-life, 1 + HORIZON, items)  # as time, 0 oldest and 1 now
    rate = random.pareto(1.5, items) + 0.2
    time = np.sort(random.random(n))
    code = np.empty(n, dtype=np.int64)
    for k, t in enumerate(time):
        there = np.flatnonzero((begins <= t) & (t < begins + life))
        code[k] = random.choice(there, p=rate[there] / rate[there].sum())
    future = np.zeros(items)
    for t in 1 + HORIZON * (np.arange(200) + 0.5) / 200:
        there = (begins <= t) & (t < begins + life)
        future += n * HORIZON / 200 * rate * there / (rate * there).sum()
    return code, 1 - time, future


def test_items_that_are_gone_are_expected_no_more():
    code, age, future = shop()
    past = np.stack([known_of(code, age, 2_000, cut) for cut in CUTS], axis=1)
    present = known_of(code, age, 2_000, 0.0)
    expected = forecast(past, present)
    known = present[:, 1] > 0
    recency = present[:, 4] / 2**32  # the counts by the half-life that weights otherwise go by

    def fit(values: np.ndarray) -> float:
        return float(np.corrcoef(np.sqrt(values[known]), np.sqrt(future[known]))[0, 1])

    assert fit(expected) > 0.85 > fit(recency) + 0.1
    gone = known & (present[:, 0] > 0.15 * 2**30)
    assert expected[gone].sum() < 0.02 * expected[known].sum() < recency[gone].sum()
    # As many as come, about, of those that are known.
    assert expected[known].sum() == pytest.approx(future[known].sum(), rel=0.25)
    np.testing.assert_array_equal(expected, forecast(past, present))


def test_too_small_a_past_foresees_nothing():
    code, age = edges(2)
    past = np.stack([known_of(code, age, 20, cut) for cut in CUTS], axis=1)
    assert forecast(past, known_of(code, age, 20, 0.0)) is None


def test_a_move_is_beside_the_median_item_and_bounded():
    demand, recency = np.array([1.0, 2.0, 4.0, 1e6, 0.0]), np.array([1.0, 1.0, 1.0, 1.0, 1.0])
    assert moved(demand, recency).tolist() == [0.5, 1.0, 2.0, 50.0, 0.02]
    assert moved(np.zeros(2), np.zeros(2)).tolist() == [0.02, 0.02]
