"""The looked-up metrics equal the library's on a whole run; coverage and popularity."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from ir_measures import RR, R, nDCG

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.metrics import METRICS, coverage, mean_popularity, session_sums, value_by_rank

MEASURES = {"recall@20": R @ 20, "mrr@20": RR @ 20, "ndcg@20": nDCG @ 20}


@pytest.fixture
def cases() -> Cases:
    random = np.random.default_rng(0)
    return Cases.from_sessions([random.integers(0, 9, n) for n in random.integers(2, 9, 80)])


@pytest.fixture
def ranks(cases: Cases) -> np.ndarray:
    return np.random.default_rng(1).integers(1, 45, cases.n_cases).astype(np.int32)


def test_the_table_is_the_textbook_s() -> None:
    table = value_by_rank()
    assert tuple(table) == METRICS
    for rank in range(1, 21):
        assert table["recall@20"][rank] == 1
        assert table["mrr@20"][rank] == pytest.approx(1 / rank)
        assert table["ndcg@20"][rank] == pytest.approx(1 / math.log2(rank + 1))
    for values in table.values():
        assert values[21] == 0 and math.isnan(values[0]) and values.shape == (22,)


def test_another_cut_off() -> None:
    assert value_by_rank(2)["recall@2"][1:].tolist() == [1, 1, 0]


def test_looked_up_sums_equal_the_library_on_the_whole_run(cases: Cases, ranks: np.ndarray) -> None:
    # Every case a query over 50 documents with random scores, the relevant one at its rank; a tenth of
    # the targets beyond the cut-off are not in the run at all.
    random = np.random.default_rng(2)
    judged, run = {}, {}
    for case, rank in enumerate(ranks.tolist()):
        scores = -np.sort(-random.random(50))
        documents = [f"d{k}" for k in random.permutation(50)]
        judged[str(case)] = {documents[rank - 1]: 1}
        run[str(case)] = dict(zip(documents, scores.tolist(), strict=True))
        if rank > 20 and case % 10 == 0:
            del run[str(case)][documents[rank - 1]]
    assert len(run) > 200
    found = session_sums(ranks, cases)
    whole = ir_measures.calc_aggregate(list(MEASURES.values()), judged, run)
    by_case = {name: np.zeros(cases.n_cases) for name in METRICS}
    names = {measure: name for name, measure in MEASURES.items()}
    for value in ir_measures.iter_calc(list(MEASURES.values()), judged, run):
        by_case[names[value.measure]][int(value.query_id)] = value.value
    for name, measure in MEASURES.items():
        assert found.mean(name) == pytest.approx(whole[measure])
        expected = [by_case[name][cases.session_of == s].sum() for s in range(cases.n_sessions)]
        assert found.sums[name] == pytest.approx(expected)


def test_a_mask_leaves_out_cases_and_keeps_sessions(cases: Cases, ranks: np.ndarray) -> None:
    mask = cases.targets < 3
    found, rest, whole = (session_sums(ranks, cases, m) for m in (mask, ~mask, None))
    assert found.counts.sum() == mask.sum()
    assert (found.counts + rest.counts).tolist() == np.diff(cases.case_starts).tolist()
    for metric in METRICS:
        assert found.sums[metric] + rest.sums[metric] == pytest.approx(whole.sums[metric])
    assert found.mean("recall@20") == pytest.approx((ranks[mask] <= 20).mean())


def test_no_case_has_no_mean(cases: Cases, ranks: np.ndarray) -> None:
    found = session_sums(ranks, cases, np.zeros(cases.n_cases, dtype=bool))
    assert math.isnan(found.mean("mrr@20")) and found.counts.tolist() == [0] * 80


def test_popularity_of_lists_drawn_evenly_is_a_half() -> None:
    item_sessions = np.array([5, 0, 3, 3, 9, 3])
    assert mean_popularity(np.full(6, 4), item_sessions) == pytest.approx(0.5)
    # 0 is the lowest of six, the three 3s share the places 2 to 4, 9 is the highest.
    percentiles = [mean_popularity(row, item_sessions) for row in np.eye(6, dtype=np.int64)]
    assert percentiles == pytest.approx(np.array([4.5, 0.5, 2.5, 2.5, 5.5, 2.5]) / 6)


def test_without_lists_nothing_is_covered() -> None:
    none = np.zeros(4, dtype=np.int64)
    assert coverage(none) == 0 and math.isnan(mean_popularity(none, np.arange(4)))
