"""The sampled softmax estimates the exact normaliser without bias; row-wise Adam is Adam."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from prune_lib.experts.loss import NegativeSampler, accidental_hits, sampled_log_normaliser  # noqa: E402
from prune_lib.experts.optim import RowAdam  # noqa: E402


def test_the_sampled_normaliser_is_unbiased():
    generator = torch.Generator().manual_seed(1)
    popularity = np.array([500, 200, 100, 40, 20, 10, 5, 2, 1, 1], dtype=np.int64)
    scores = torch.randn(4, 10, generator=generator).double()
    targets = torch.tensor([0, 3, 7, 9])
    exact = scores.exp().sum(1)
    sampler = NegativeSampler(popularity, 0.75, seed=2)
    estimates = []
    for _ in range(4000):
        drawn, log_expected = sampler.draw(8)
        negatives = torch.from_numpy(drawn)
        log_z = sampled_log_normaliser(
            scores.gather(1, targets[:, None])[:, 0],
            scores,
            torch.eye(10).double()[negatives],  # a state times these is its scores
            torch.zeros(8).double(),
            accidental_hits(targets, negatives),
            torch.from_numpy(log_expected),
        )
        estimates.append(log_z.exp())
    found = torch.stack(estimates)
    error = found.std(0) / len(estimates) ** 0.5
    assert ((found.mean(0) - exact).abs() < 4 * error).all()


def test_the_sampler_follows_popularity_to_its_power():
    sampler = NegativeSampler(np.array([16, 1]), 0.5, seed=0)
    drawn, log_expected = sampler.draw(50_000)
    assert abs((drawn == 0).mean() - 0.8) < 0.01
    assert np.isclose(log_expected[drawn == 0][0], np.log(50_000 * 0.8))


def test_only_accidental_hits_leave_the_target_alone():
    log_z = sampled_log_normaliser(
        torch.tensor([2.0]), torch.tensor([[9.0]]), torch.ones(2, 1), torch.zeros(2),
        accidental_hits(torch.tensor([5]), torch.tensor([5, 5])), torch.zeros(2),
    )  # fmt: skip
    assert log_z.item() == pytest.approx(2.0)


def test_the_gradient_by_hand_is_autograds_own():
    generator = torch.Generator().manual_seed(3)
    n, k, width, n_items = 12, 9, 4, 15
    positive, states, vectors, bias = (
        torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
        for shape in ((n,), (n, width), (k, width), (k,))
    )
    targets, negatives = (torch.randint(n_items, (size,), generator=generator) for size in (n, k))
    log_expected = torch.randn(k, generator=generator, dtype=torch.float64)
    hits = targets[:, None] == negatives
    assert hits.any(), "the case to be tested"
    plain = (states @ vectors.T + bias - log_expected).masked_fill(hits, float("-inf"))
    expected = torch.logsumexp(torch.cat([positive[:, None], plain], dim=1), dim=1)
    found = sampled_log_normaliser(
        positive, states, vectors, bias, accidental_hits(targets, negatives), log_expected
    )
    assert torch.allclose(found, expected)
    upstream = torch.randn(n, generator=generator, dtype=torch.float64)
    inputs = (positive, states, vectors, bias)
    for mine, theirs in zip(
        torch.autograd.grad(found, inputs, upstream),
        torch.autograd.grad(expected, inputs, upstream),
        strict=True,
    ):
        assert torch.allclose(mine, theirs)


def test_row_adam_equals_adam_where_every_row_is_touched():
    start = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    dense = torch.nn.Parameter(start.clone())
    adam = torch.optim.Adam([dense], lr=0.1, betas=(0.9, 0.98))
    table = start.clone()
    rows = RowAdam(table, 0.1)
    for step in range(5):
        gradient = torch.randn(6, 3, generator=torch.Generator().manual_seed(step + 1))
        dense.grad = gradient.clone()
        adam.step()
        rows.step(torch.arange(6), gradient)
    assert torch.allclose(dense.detach(), table, atol=1e-5)


def test_row_adam_leaves_other_rows_alone():
    table = torch.ones(4, 2)
    RowAdam(table, 0.1).step(torch.tensor([1, 3]), torch.ones(2, 2))
    assert table[[0, 2]].eq(1).all() and table[[1, 3]].lt(1).all()
