"""Demand foreseen: sums against plain loops, and truths that were planted in the past."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from prune_lib.demand import (
    CUTS,
    HALF_LIVES,
    HORIZON,
    Foresight,
    known_of,
    learned,
    remembered,
)
from prune_lib.patterns import session_edges


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


@cache
def shop(
    n: int = 40_000, items: int = 2_000, life: float = 0.15
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Clicks on items that come and go: each is on offer for a span of `life`, popular or not.

    Items of all clicks, from old to new, their ages, and by item the clicks to expect in the next `HORIZON`.
    """
    random = np.random.default_rng(3)
    begins = random.uniform(-life, 1 + HORIZON, items)  # as time, 0 oldest and 1 now
    rate = random.pareto(1.5, items) + 0.2

    def shares(time: float) -> np.ndarray:
        there = rate * ((begins <= time) & (time < begins + life))
        return there / there.sum()

    slots = np.arange(400) / 400
    clicks = [random.choice(items, n // slots.size, p=shares(t)) for t in slots]
    future = sum(shares(1 + HORIZON * t) for t in slots) * n * HORIZON / slots.size
    return np.concatenate(clicks), 1 - np.linspace(0, 1, n), future


def foresight_of(
    sessions: list[list[int]], age: np.ndarray, n: int, support: int = 2
) -> tuple[np.ndarray, np.ndarray, Foresight | None]:
    """Codes of what sessions hold, ascending; what is known of each; and what the past has taught."""
    lengths = np.array([len(s) for s in sessions])
    code, _, edges = session_edges(np.concatenate(sessions).astype(np.int32), lengths, n, 1)
    age = np.repeat(age, edges)
    codes, place, count = np.unique(code, return_inverse=True, return_counts=True)
    stays = (codes < n) | (count >= support)
    some = remembered(codes[stays], n)

    def known(names: np.ndarray, cut: float) -> np.ndarray:
        at = np.minimum(np.searchsorted(names, code), names.size - 1)
        there = names[at] == code
        return known_of(at[there], age[there], names.size, cut)

    past = np.stack([known(some, cut) for cut in CUTS], axis=1)
    items = known(np.arange(n), 0.0)[:, :-1]
    codes = codes[stays]
    return codes, known(codes, 0.0)[:, :-1], learned(some, past, items, support)


def test_items_that_are_gone_are_expected_no_more():
    code, age, future = shop()
    # A session is a click on any item, which is no target, and one on the item.
    sessions = [[2_000, item] for item in code]
    codes, known, foresight = foresight_of(sessions, age, 2_001)
    assert foresight is not None
    expected, recency = np.zeros(2_000), np.zeros(2_000)
    items = codes < 2_000
    expected[codes[items]] = foresight.expected(codes[items], known[items])
    recency[codes[items]] = (
        known[items, 4] / 2**32
    )  # the counts by the half-life that weights otherwise go by
    known_items = recency > 0

    def fit(values: np.ndarray) -> float:
        return float(np.corrcoef(np.sqrt(values[known_items]), np.sqrt(future[known_items]))[0, 1])

    assert fit(expected) > 0.85 > fit(recency) + 0.1
    gone = known_items.copy()
    gone[codes[items]] &= known[items, 0] > 0.15 * 2**30
    assert expected[gone].sum() < 0.02 * expected.sum() < recency[gone].sum()
    # As many as come, about, of those that are known.
    assert expected.sum() == pytest.approx(future[known_items].sum(), rel=0.25)
    # All follow the same item, so that a transition is expected as often as the item that it leads to.
    pairs = ~items
    follows = foresight.expected(codes[pairs], known[pairs])
    np.testing.assert_allclose(follows.sum(), expected[(codes[pairs] - 2_001) % 2_001].sum(), rtol=0.1)


def test_a_transition_borrows_evidence_from_its_items():
    # Every item leads to any other of its thirty, and most thirties are over before the present. Of two pairs
    # that came long ago, one is to be expected still.
    random = np.random.default_rng(5)
    groups, size, n = 40, 30, 60_000
    life = random.uniform(0.05, 1.2, groups)
    time = np.linspace(0, 1, n)
    group = np.concatenate([random.choice(np.flatnonzero(life > t), n // 400) for t in np.arange(400) / 400])
    first = random.integers(0, size, n)
    second = (first + random.integers(1, size, n)) % size
    sessions = [[g * size + i, g * size + j] for g, i, j in zip(group, first, second, strict=True)]
    codes, known, foresight = foresight_of(sessions, 1 - time, groups * size)
    assert foresight is not None
    expected = foresight.expected(codes, known)
    pairs = codes >= groups * size
    group = (codes - groups * size) // (groups * size) // size
    alike = pairs & (known[:, 1] >= 2) & (known[:, 0] > 0.15 * 2**30) & (known[:, 0] < 0.6 * 2**30)
    live, over = alike & (life[group] > 1), alike & (life[group] < 0.8)
    assert live.sum() > 50 and over.sum() > 50
    assert expected[live].mean() > 10 * expected[over].mean()


def test_the_same_past_teaches_the_same_with_any_number_of_threads():
    code, age, _ = shop(n=20_000)
    sessions = [[2_000, item] for item in code]
    with threadpool_limits(1):
        codes, known, one = foresight_of(sessions, age, 2_001)
    with threadpool_limits(3):
        two = foresight_of(sessions, age, 2_001)[2]
    assert one is not None and two is not None
    np.testing.assert_array_equal(one.expected(codes, known), two.expected(codes, known))
    # Nor does it matter which patterns are asked for together.
    alone = np.concatenate([one.expected(codes[k : k + 99], known[k : k + 99]) for k in (0, 99, 198)])
    np.testing.assert_array_equal(alone, two.expected(codes, known)[:297])


def test_too_small_a_past_foresees_nothing():
    code, age = edges(2)
    sessions = [[20, item] for item in code]
    assert foresight_of(sessions, age, 21)[2] is None


def test_what_is_remembered_has_its_items():
    n = 100_000
    random = np.random.default_rng(0)
    pairs = np.unique(n + random.integers(0, n, 90_000) * n + random.integers(0, n, 90_000))
    codes = np.concatenate([np.arange(n), pairs])
    found = remembered(codes, n)
    assert (np.diff(found) > 0).all() and np.isin(found, codes).all()
    some = found[found >= n]
    assert 20_000 < some.size <= 25_000
    assert np.isin(np.concatenate(np.divmod(some - n, n)), found).all()
    assert np.isin(np.arange(0, n, 4), found).all()
