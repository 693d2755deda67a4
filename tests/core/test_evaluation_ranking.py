"""Ranks and lists against loops; ties, NaN and -inf."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.ranking import AT, conservative_ranks, rank_cases, top_items

# Few levels, so that ties are the rule.
level = st.sampled_from([-math.inf, math.nan, -1.0, 0.0, 0.5, 2.0, math.inf])


def rank(scores: list[float], target: int) -> int:
    """The definition, item by item."""
    mine = scores[target]
    if math.isnan(mine) or mine == -math.inf:
        return max(len(scores), AT + 1)
    return sum(math.isnan(s) or s >= mine for s in scores)


def best(scores: list[float], at: int) -> list[int]:
    """The definition: sort everything."""
    order = sorted((i for i, s in enumerate(scores) if s > -math.inf), key=lambda i: (-scores[i], i))[:at]
    return order + [-1] * (at - len(order))


@given(st.lists(level, min_size=1, max_size=60), st.data())
def test_ranks_put_every_tie_before_the_target(scores: list[float], data: st.DataObject) -> None:
    target = data.draw(st.integers(0, len(scores) - 1))
    found = conservative_ranks(np.array([scores], dtype=np.float32), np.array([target], dtype=np.int32))
    assert found.tolist() == [rank(scores, target)]


@given(st.lists(level, min_size=1, max_size=60), st.integers(1, 25))
def test_short_rows_list_the_best(scores: list[float], at: int) -> None:
    assert top_items(np.array([scores], dtype=np.float32), at).tolist() == [best(scores, at)]


@pytest.mark.parametrize("n_items", [1279, 1280, 1281, 3000])
@pytest.mark.parametrize("levels", [[-np.inf], [-np.inf, 1.0], [np.nan, 0.0], [np.nan, -np.inf], None])
def test_long_rows_list_the_best(n_items: int, levels: list[float] | None) -> None:
    random = np.random.default_rng(n_items)
    if levels is None:
        scores = random.standard_normal((6, n_items)).astype(np.float32)
    else:
        scores = random.choice(np.array(levels, dtype=np.float32), (6, n_items))
        # A few good ones, some in one column of the folded row.
        scores[1:, [0, 46, 92, 7]] = [3, 4, 4, 2]
        scores[2:, random.permutation(n_items)[:30]] = 2.5
    assert top_items(scores).tolist() == [best(row.tolist(), AT) for row in scores]


@dataclass(frozen=True)
class Hashed:
    """A target model whose scores depend on the prefix, and are often equal."""

    n_items: int

    def scores(self, sessions: list[npt.NDArray[np.int32]], first: int = 1) -> npt.NDArray[np.float32]:
        rows = [
            (np.arange(self.n_items) * 7 + int(s[:t].sum()) * 13 + t) % 11
            for s in sessions
            for t in range(first, len(s))
        ]
        return np.array(rows, dtype=np.float32)


@pytest.fixture
def cases() -> Cases:
    random = np.random.default_rng(4)
    return Cases.from_sessions([random.integers(0, 40, n) for n in random.integers(2, 9, 30)])


@pytest.mark.parametrize("most", [1, 3, 10, 10_000])
def test_batches_change_nothing(cases: Cases, most: int) -> None:
    found = rank_cases(Hashed(40), cases, max_cases=most)
    scores = Hashed(40).scores(cases.sessions(0, cases.n_sessions)).tolist()
    assert found.ranks.tolist() == [rank(s, t) for s, t in zip(scores, cases.targets.tolist(), strict=True)]
    lists = [item for s in scores for item in best(s, AT)]
    assert found.recommended.tolist() == np.bincount(lists, minlength=40).tolist()
    assert found.lists == cases.n_cases


def test_scores_of_another_shape_are_refused(cases: Cases) -> None:
    class Wrong(Hashed):
        def scores(self, sessions: list[npt.NDArray[np.int32]], first: int = 1) -> npt.NDArray[np.float32]:
            return super().scores(sessions, first)[1:]

    with pytest.raises(ValueError, match="Wrong.scores gave shape"):
        rank_cases(Wrong(40), cases)
