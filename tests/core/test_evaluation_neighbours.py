"""Item-kNN, V-SkNN and the Markov chain against slow references, prefix by prefix."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.ranking import Target, rank_cases
from prune_lib.evaluation.targets import neighbours
from prune_lib.evaluation.targets.markov import Markov
from prune_lib.evaluation.targets.neighbours import ItemKnn, SessionKnn
from prune_lib.evaluation.targets.prefixes import latest_places

N_ITEMS = 14
Sessions = list[list[int]]

# Items 10 and 11 are never trained on; 12 and 13 are in no session at all.
training = st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=6), min_size=1, max_size=25)
tests = st.lists(st.lists(st.integers(0, 11), min_size=2, max_size=8), min_size=1, max_size=6)


def arrays(sessions: Sessions) -> list[npt.NDArray[np.int32]]:
    return [np.array(s, dtype=np.int32) for s in sessions]


def expected(sessions: Sessions, score: Callable[[list[int]], dict[int, float]]) -> npt.NDArray[np.float32]:
    """A reference's scores after every proper prefix; -inf where it has none."""
    rows = []
    for prefix in [s[:t] for s in sessions for t in range(1, len(s))]:
        found = score(prefix)
        rows.append([found.get(i, -math.inf) for i in range(N_ITEMS)])
    return np.array(rows, dtype=np.float32)


def item_knn(train: Sessions, prefix: list[int], k: int, damping: float) -> dict[int, float]:
    """Damped cosine to the last item, other items only."""
    last = prefix[-1]
    held = [set(s) for s in train]
    support = [sum(i in s for s in held) for i in range(N_ITEMS)]
    found = {}
    for other in range(N_ITEMS):
        together = sum(other in s and last in s for s in held)
        if other != last and together:
            product = (support[last] + damping) * (support[other] + damping)
            found[other] = float(np.float32(together / np.sqrt(product)))
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0]))[:k])


def v_sknn(train: Sessions, prefix: list[int], k: int, idf: float) -> dict[int, float]:
    """The paper's definition in exact fractions, times the squared length of the prefix."""
    n = len(prefix)
    decay = {item: Fraction(place, n) for place, item in enumerate(prefix, 1)}
    near = []
    for number, session in enumerate(train):
        similarity = sum((decay[i] for i in decay.keys() & set(session)), Fraction(0))
        if similarity:
            near.append((similarity, number))
    found: dict[int, Fraction] = {}
    for similarity, number in sorted(near, reverse=True)[:k]:
        latest = next(item for item in reversed(prefix) if item in train[number])
        for item in set(train[number]):
            found[item] = found.get(item, Fraction(0)) + similarity * decay[latest]
    support = {item: sum(item in s for s in train) for item in found}
    return {
        item: float(score * n * n) * (1 + idf * math.log(len(train) / support[item]))
        for item, score in found.items()
    }


def markov(train: Sessions, prefix: list[int], prior: float) -> dict[int, float]:
    """Smoothed shares of the immediate successors."""
    last = prefix[-1]
    clicks = [i for s in train for i in s]
    after = [b for s in train for a, b in zip(s, s[1:], strict=False) if a == last]
    return {
        i: (after.count(i) + prior * clicks.count(i) / len(clicks)) / (len(after) + prior)
        for i in set(clicks)
    }


@given(training, tests, st.integers(1, 6), st.sampled_from([0.0, 20.0]))
def test_item_knn_equals_its_definition(train: Sessions, sessions: Sessions, k: int, damping: float) -> None:
    found = ItemKnn.fit(arrays(train), N_ITEMS, k, damping).scores(arrays(sessions))
    assert np.array_equal(found, expected(sessions, lambda prefix: item_knn(train, prefix, k, damping)))


@given(training, tests, st.integers(1, 8), st.sampled_from([0.0, 1.0]))
def test_session_knn_equals_its_definition(train: Sessions, sessions: Sessions, k: int, idf: float) -> None:
    found = SessionKnn.fit(arrays(train), N_ITEMS, k, idf).scores(arrays(sessions))
    reference = expected(sessions, lambda prefix: v_sknn(train, prefix, k, idf))
    if idf:
        np.testing.assert_allclose(found, reference, rtol=1e-6)
    else:
        assert np.array_equal(found, reference)  # integers: ties are exact


@given(training, tests, st.sampled_from([0.5, 10.0]))
def test_markov_equals_its_definition(train: Sessions, sessions: Sessions, prior: float) -> None:
    found = Markov.fit(arrays(train), N_ITEMS, prior).scores(arrays(sessions))
    np.testing.assert_allclose(
        found, expected(sessions, lambda prefix: markov(train, prefix, prior)), rtol=1e-6
    )
    known = np.isfinite(found[0])
    np.testing.assert_allclose(found[:, known].sum(axis=1), 1, rtol=1e-5)


def test_item_knn_in_blocks_of_items(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    train = [random.integers(0, 10, n).astype(np.int32) for n in random.integers(1, 7, 60)]
    whole = ItemKnn.fit(train, N_ITEMS, 4).similarity.toarray()
    monkeypatch.setattr(neighbours, "_ROWS", 3)
    assert np.array_equal(ItemKnn.fit(train, N_ITEMS, 4).similarity.toarray(), whole)


@pytest.mark.parametrize("model", [ItemKnn, SessionKnn, Markov])
def test_what_training_lacks_is_never_recommended(model: type[ItemKnn | SessionKnn | Markov]) -> None:
    target: Target = model.fit(arrays([[0, 1], [1, 2, 3]]), N_ITEMS)
    scores = target.scores(arrays([[0, 1, 12], [10, 11], [11, 0, 5]]))
    assert scores.shape == (5, N_ITEMS) and scores.dtype == np.float32
    assert (scores[:, 4:] == -np.inf).all()
    # A prefix of unknown items: the neighbours know nothing, the chain falls back on popularity.
    assert np.isfinite(scores[2, :4]).all() == (model is Markov)
    only_unknown = target.scores(arrays([[10, 11]]))
    assert np.array_equal(only_unknown, scores[2:3])


@pytest.mark.parametrize("model", [ItemKnn, SessionKnn, Markov])
def test_a_long_session_in_parts_is_the_long_session(model: type[ItemKnn | SessionKnn | Markov]) -> None:
    random = np.random.default_rng(2)
    train = [random.integers(0, N_ITEMS, n).astype(np.int32) for n in random.integers(1, 7, 60)]
    target: Target = model.fit(train, N_ITEMS)
    sessions = [random.integers(0, N_ITEMS, n).astype(np.int32) for n in (5, 40, 2)]
    whole, parts = (rank_cases(target, Cases.from_sessions(sessions), max_cases=most) for most in (100, 7))
    assert whole.ranks.tolist() == parts.ranks.tolist()
    assert whole.recommended.tolist() == parts.recommended.tolist()
    assert np.array_equal(target.scores(sessions[1:2])[9:], target.scores(sessions[1:2], 10))


def test_ties_at_the_last_neighbour_go_to_the_later_session() -> None:
    train = arrays([[0, 1], [0, 2], [0, 3]])
    scores = SessionKnn.fit(train, N_ITEMS, neighbours=2).scores(arrays([[0, 9]]))
    assert np.flatnonzero(np.isfinite(scores[0])).tolist() == [0, 2, 3]


def test_places_are_the_latest_in_very_unequal_sessions() -> None:
    random = np.random.default_rng(5)
    sessions = [random.integers(0, N_ITEMS, n).astype(np.int32) for n in (2, 70, 3, 2, 31)]
    found = latest_places(sessions, N_ITEMS).toarray()
    rows = []
    for session in sessions:
        for t in range(1, len(session)):
            row = [0] * N_ITEMS
            for place, item in enumerate(session[:t].tolist(), 1):
                row[item] = place
            rows.append(row)
    assert found.tolist() == rows
