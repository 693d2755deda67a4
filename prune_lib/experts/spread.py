"""How a mixture spreads its probability over the items: EL2N, margin and entropy of each prediction.

With p the mixture's distribution over the next item and t the target, all of them higher = harder:

    el2n      || p - e_t ||, the length of the error vector (Paul et al., NeurIPS 2021), in [0, sqrt 2)
    margin    log of the largest p_i, i != t, less log p_t, nats: the area under the margin (Pleiss et al.,
              NeurIPS 2020) at one time, turned round; below 0 where the target comes first
    entropy   - sum_i p_i log p_i, nats; it does not look at the target
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prune_lib.experts.settings import SPREADS

if TYPE_CHECKING:
    from prune_lib.experts.mixture import Normaliser

__all__ = ["spread_of"]

# Probabilities in memory at a time, as in mixture.py.
_POSITIONS, _ITEMS = 1024, 4096
# No probability is 0: its logarithm is taken.
_TINY = 1e-30


def spread_of(
    normalisers: list[Normaliser], states: list[Tensor], log_p: Tensor, log_g: Tensor, targets: Tensor
) -> Tensor:
    """EL2N, margin and entropy by position [N, 3], float64.

    Sums run over the items of the normalisers: all of them, or the shared negatives, each for the items
    that it stands for; the target counts as it is. Cost: a second pass over the items.

    Args:
        normalisers: the experts'.
        states: theirs at the positions, each [N, d].
        log_p: log p_e of the targets [N, 3].
        log_g: log of the gate [N, 3].
        targets: item indices [N].
    """
    summed = normalisers[0]
    n_items = len(summed.bias)
    items = torch.arange(n_items, device=targets.device) if summed.items is None else summed.items
    weight = torch.ones_like(summed.bias) if summed.weight is None else summed.weight
    # What a score is less than log(g p): the gate's weight and the normaliser.
    shift = [
        log_g[:, e] + log_p[:, e] - normaliser.score(h, targets)
        for e, (normaliser, h) in enumerate(zip(normalisers, states, strict=True))
    ]
    out = torch.zeros(len(targets), len(SPREADS), dtype=torch.float64, device=targets.device)
    for i in range(0, len(targets), _POSITIONS):
        rows = slice(i, i + _POSITIONS)
        squares = torch.zeros(len(targets[rows]), dtype=torch.float64, device=targets.device)
        entropy, best = torch.zeros_like(squares), torch.full_like(squares, _TINY)
        for j in range(0, len(items), _ITEMS):
            part = slice(j, j + _ITEMS)
            p = torch.zeros(len(targets[rows]), len(items[part]), device=targets.device)
            for normaliser, h, less in zip(normalisers, states, shift, strict=True):
                scores = torch.addmm(normaliser.bias[items[part]], h[rows], normaliser.table[items[part]].T)
                p += (scores + less[rows, None]).exp_()
            p.masked_fill_(items[part] == targets[rows, None], 0.0)
            squares += (weight[part] * p.square()).sum(dim=1)
            entropy -= (weight[part] * torch.xlogy(p, p)).sum(dim=1)
            best = torch.maximum(best, p.amax(dim=1).double())
        own = torch.logsumexp(log_g[rows].double() + log_p[rows].double(), dim=1)
        out[rows, 0] = (squares + (1.0 - own.exp()).square()).sqrt()
        out[rows, 1] = best.log() - own
        out[rows, 2] = entropy - own * own.exp()
    return out
