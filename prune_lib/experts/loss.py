"""Sampled softmax for training, and the normaliser log Z of the softmax for scoring."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["NegativeSampler", "accidental_hits", "sampled_log_normaliser"]


class NegativeSampler:
    """Draws shared negatives from popularity^power, with replacement, deterministically by seed."""

    def __init__(
        self, popularity: npt.NDArray[np.int64], power: float, seed: int, *, unseen: bool = True
    ) -> None:
        """Take popularity (sessions per item, [n_items]).

        Args:
            popularity: sessions per item.
            power: an item is drawn in proportion to popularity to this power.
            seed: of the draws.
            unseen: an item of popularity 0 counts as one of popularity 1; else it is never drawn.
        """
        weight = np.maximum(popularity, 1).astype(np.float64) ** power
        if not unseen:
            weight[popularity == 0] = 0.0
        self.probability = weight / weight.sum()
        self._cumulative = np.cumsum(self.probability)
        self._last = int(np.flatnonzero(weight)[-1])
        self._random = np.random.default_rng(seed)

    def draw(self, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return k item indices and log(k q) of each (log of its expected count in the draw)."""
        drawn = np.searchsorted(self._cumulative, self._random.random(k), side="right")
        # The sum's last digits may leave a draw behind the last item that can be drawn.
        drawn = np.minimum(drawn, self._last)
        return drawn, np.log(k * self.probability[drawn]).astype(np.float32)


def sampled_log_normaliser(
    positive: Tensor,
    states: Tensor,
    vectors: Tensor,
    bias: Tensor,
    hits: tuple[Tensor, Tensor],
    log_expected: Tensor,
) -> Tensor:
    """Return log of an unbiased estimate of Z = sum_i exp(score_i), [N].

    The target enters as it is; every negative j, of score states . vectors_j + bias_j, is divided by how
    often it is expected in the draw (logQ correction), and a negative that is the target itself (accidental
    hit) is left out, so that E[Z^] = exp(s_target) + sum_{j != target} exp(s_j) exactly (Bengio and Senecal,
    2008).

    Args:
        positive: scores of the targets [N].
        states: states [N, d].
        vectors: item vectors of the negatives [K, d].
        bias: biases of the negatives [K].
        hits: rows and columns of the scores [N, K] that do not count, see `accidental_hits`.
        log_expected: log of the expected count of each negative in the draw [K].
    """
    log_z: Tensor = _SampledLogNormaliser.apply(  # type: ignore[no-untyped-call]
        positive, states, vectors, bias - log_expected, *hits
    )
    return log_z


class _SampledLogNormaliser(torch.autograd.Function):
    """Log of exp(positive) + sum_j exp(states . vectors_j + offset_j), with its gradient by hand.

    The scores [N, K] are by far the largest thing in a step: written once, and made into their
    exponentials in place. Autograd's own way, which keeps the scores, the corrected, the masked and the
    joined ones, takes a third more time for the whole step of a GRU of width 96.
    """

    @staticmethod
    def forward(
        ctx: Any,
        positive: Tensor,
        states: Tensor,
        vectors: Tensor,
        offset: Tensor,
        rows: Tensor,
        columns: Tensor,
    ) -> Tensor:
        """Return log Z [N]; the scores at `rows`, `columns` do not count."""
        terms = torch.addmm(offset, states, vectors.T)
        terms[rows, columns] = float("-inf")
        largest = torch.maximum(terms.amax(dim=1), positive)
        terms.sub_(largest.unsqueeze(1)).exp_()
        first = (positive - largest).exp()
        total = terms.sum(dim=1) + first
        ctx.save_for_backward(states, vectors, terms, first, total)
        return largest + total.log()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of positive, states, vectors and offset."""
        states, vectors, terms, first, total = ctx.saved_tensors
        each = gradients[0] / total
        of_states = (terms @ vectors) * each.unsqueeze(1)
        of_vectors = terms.T @ (states * each.unsqueeze(1))
        return first * each, of_states, of_vectors, terms.T @ each, None, None


def accidental_hits(targets: Tensor, negatives: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of the scores [N, K] where the negative [K] is the row's target [N].

    >>> [x.tolist() for x in accidental_hits(torch.tensor([7, 5, 3]), torch.tensor([5, 3, 5]))]
    [[1, 1, 2], [0, 2, 1]]
    """
    ordered, place = negatives.sort(stable=True)
    first = torch.searchsorted(ordered, targets)
    count = torch.searchsorted(ordered, targets, right=True) - first
    rows = torch.arange(len(targets), device=targets.device).repeat_interleave(count)
    before = count.cumsum(0) - count
    nth = torch.arange(len(rows), device=targets.device) - before[rows]
    return rows, place[first[rows] + nth]
