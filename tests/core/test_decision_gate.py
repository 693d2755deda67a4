"""The gate that is trained for the decision, on planted truths."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")

from prune_lib.evaluation.decision_gate import gated_by_decision  # noqa: E402

N = 4_000


@pytest.fixture(scope="module")
def planted():
    """Short sessions: hard ones by the first expert harm. Long ones: hard ones by the third help."""
    random = np.random.default_rng(0)
    scores = random.random((N, 3)) - 0.5
    length = random.normal(size=N)
    truth = np.where(length < 0, -scores[:, 0], scores[:, 2])
    inputs = np.stack([length, random.normal(size=N)], axis=1)
    helps = truth + 0.1 * random.normal(size=N)
    helps[random.random(N) < 0.1] = np.nan
    return scores, inputs, helps, random.integers(0, 2, N).astype(np.int32), truth


def test_it_finds_whose_score_tells_what(planted):
    scores, inputs, helps, fold, truth = planted
    expected, gate = gated_by_decision(scores, inputs, helps, fold)
    assert np.corrcoef(expected, truth)[0, 1] > 0.95
    short, long = inputs[:, 0] < -1, inputs[:, 0] > 1
    # The second expert says nothing, and may have a share at a slope of 0.
    assert gate[short, 0].mean() > gate[long, 0].mean() + 0.5
    assert gate[long, 2].mean() > gate[short, 2].mean() + 0.5
    np.testing.assert_allclose(gate.sum(axis=1), 1.0)
    assert np.isfinite(expected).all(), "also of sessions of which nothing is known"


def test_no_session_has_a_part_in_its_own(planted):
    scores, inputs, helps, fold, _ = planted
    expected, _ = gated_by_decision(scores, inputs, helps, fold)
    other = np.where(fold == 0, -helps, helps)  # the other way round, in the first half only
    turned, _ = gated_by_decision(scores, inputs, other, fold)
    np.testing.assert_array_equal(turned[fold == 0], expected[fold == 0])
    assert np.corrcoef(turned[fold == 1], expected[fold == 1])[0, 1] < 0


def test_no_expert_takes_over_or_is_lost_where_none_tells_anything():
    random = np.random.default_rng(1)
    scores, inputs = random.random((N, 3)) - 0.5, random.normal(size=(N, 2))
    fold = random.integers(0, 2, N).astype(np.int32)
    expected, gate = gated_by_decision(scores, inputs, random.random(N) - 0.5, fold)
    assert gate.mean(axis=0) == pytest.approx(1 / 3, abs=0.15) and np.abs(expected).max() < 0.1
    nothing, uniform = gated_by_decision(scores, inputs, np.full(N, np.nan), fold)
    assert (nothing == 0).all() and (uniform == 1 / 3).all()
    same, _ = gated_by_decision(np.zeros((N, 3)), inputs, np.zeros(N), fold)
    assert (same == 0).all()
