"""Sampled softmax for training, and the normaliser log Z of the softmax for scoring."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["NegativeSampler", "sampled_log_normaliser"]


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
    positive: Tensor, negative: Tensor, targets: Tensor, negatives: Tensor, log_expected: Tensor
) -> Tensor:
    """Return log of an unbiased estimate of Z = sum_i exp(score_i), [N].

    The target enters as it is; every negative j is divided by how often it is expected in the draw
    (logQ correction), and a negative that is the target itself (accidental hit) is left out, so
    that E[Z^] = exp(s_target) + sum_{j != target} exp(s_j) exactly (Bengio and Senecal, 2008).

    Args:
        positive: scores of the targets [N].
        negative: scores of the negatives [N, K].
        targets: item indices of the targets [N].
        negatives: item indices of the negatives [K].
        log_expected: log of the expected count of each negative in the draw [K].
    """
    corrected = negative - log_expected
    corrected = corrected.masked_fill(targets.unsqueeze(1) == negatives, float("-inf"))
    return torch.logsumexp(torch.cat([positive.unsqueeze(1), corrected], dim=1), dim=1)
