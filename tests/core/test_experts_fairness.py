"""Fairness: planted scores that go with popularity, or do not."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from prune_lib.experts.fairness import fairness
from prune_lib.experts.settings import EXPERTS
from prune_lib.popularity import popularity_band

RNG = np.random.default_rng(5)
POPULARITY = np.floor(np.exp(RNG.random(4000) * 8)).astype(np.int64)
GATE = np.log(np.tile([0.5, 0.3, 0.2], (4000, 1)))


def test_a_loss_by_popularity_alone_is_unfair_and_adjusting_it_mends_that() -> None:
    by_band = -(8.0 - popularity_band(POPULARITY)[:, None] + RNG.random((4000, 3)))
    found = fairness(by_band, GATE, POPULARITY)
    assert all(found["spearman"][name] < -0.9 for name in (*EXPERTS, "mixture"))
    assert abs(found["spearman"]["adjusted"]) < 0.05
    losses = [decile["loss_mixture"] for decile in found["deciles"]]
    assert losses == sorted(losses, reverse=True) and len(losses) == 10
    assert all(abs(decile["adjusted"]) < 0.1 for decile in found["deciles"])


def test_it_is_scipys_spearman_and_deciles_hold_everything_once() -> None:
    log_p = -RNG.random((4000, 3)) * 5
    found = fairness(log_p, GATE, POPULARITY)
    mixture = -np.logaddexp.reduce(log_p + GATE, axis=1)
    for name, loss in zip((*EXPERTS, "mixture"), (*-log_p.T, mixture), strict=True):
        assert found["spearman"][name] == pytest.approx(spearmanr(loss, POPULARITY).statistic, abs=1e-4)
    sizes = np.array([decile["positions"] for decile in found["deciles"]])
    assert sizes.sum() == 4000 and sizes.min() > 200
    assert [decile["gate_gnn"] for decile in found["deciles"]] == [0.5] * 10
    means = np.array([decile["loss_rnn"] for decile in found["deciles"]])
    assert (means * sizes).sum() / 4000 == pytest.approx(-log_p[:, 1].mean(), abs=1e-3)
    for one, other in zip(found["deciles"], found["deciles"][1:], strict=False):
        assert one["from"] <= one["to"] < other["from"]


def test_one_popularity_is_one_group_and_goes_with_nothing() -> None:
    found = fairness(-RNG.random((20, 3)), GATE[:20], np.full(20, 7))
    assert set(found["spearman"].values()) == {0.0}
    assert [(d["from"], d["to"], d["positions"]) for d in found["deciles"]] == [(7, 7, 20)]
