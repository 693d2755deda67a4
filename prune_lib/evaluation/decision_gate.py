"""A gate over the experts that is trained for the decision instead of the likelihood: which sessions help.

For a form of `forms.py` that was tried and is no part of pruning. In one process, seconds for any input: it
is fitted on `_SESSIONS` sessions at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["gated_by_decision"]

Floats = npt.NDArray[np.float64]

# Sessions that one half is fitted on, steps of the fit, and how much an expert left out costs.
_SESSIONS, _STEPS, _BALANCE = 50_000, 300, 0.01


def gated_by_decision(
    scores: Floats, inputs: Floats, helps: Floats, fold: npt.NDArray[np.int32]
) -> tuple[Floats, Floats]:
    """What each session is expected to help, by the experts' scores and a gate that says whose score counts.

    Expected is sum_e g_e(inputs) c_e score_e, with g a softmax that is linear in the inputs and c_e one
    slope by expert (whether an expert's hard sessions help or harm). Both are fitted by least squares to what
    is known of the other fold's sessions, so that no session has a part in its own; -mean_e log mean g_e is
    added so that no expert takes over (as auxiliary losses balance a mixture: Shazeer et al., ICLR 2017).

    Args:
        scores: the experts' scores, each centred, shape (R, E).
        inputs: what the gate reads, standardised, shape (R, F).
        helps: how much a session helps, centred; NaN where that is not known, shape (R,).
        fold: by session, 0 or 1, shape (R,).

    Returns:
        What is expected by session, shape (R,), and the gate's weights, shape (R, E).
    """
    import torch

    known = ~np.isnan(helps)
    x, z = torch.from_numpy(scores), torch.from_numpy(inputs)
    y = torch.from_numpy(np.where(known, helps, 0.0))
    expected, gate = np.zeros(len(scores)), np.full(scores.shape, 1 / scores.shape[1])
    for own in (0, 1):
        rows = np.flatnonzero(known & (fold != own))
        if rows.size:
            some = torch.from_numpy(rows[:: -(-rows.size // _SESSIONS)])
            weight, slope = _fitted(x[some], z[some], y[some])
            mine = torch.from_numpy(np.flatnonzero(fold == own))
            g = _gate(z[mine], weight)
            gate[mine.numpy()] = g.numpy()
            expected[mine.numpy()] = (g * slope * x[mine]).sum(dim=1).numpy()
    return expected, gate


def _gate(inputs: Tensor, weight: Tensor) -> Tensor:
    return (inputs @ weight[:-1] + weight[-1]).softmax(dim=1)


def _fitted(scores: Tensor, inputs: Tensor, helps: Tensor) -> tuple[Tensor, Tensor]:
    """The gate's weights [F + 1, E], its constants last, and the experts' slopes [E]."""
    import torch

    # From a uniform gate, and each expert's slope as if it were alone.
    n_experts = scores.shape[1]
    alone = (scores * helps[:, None]).sum(dim=0) / (scores**2).sum(dim=0).clamp_min(1e-12)
    weight = torch.zeros(inputs.shape[1] + 1, n_experts, dtype=scores.dtype, requires_grad=True)
    slope = alone.clone().requires_grad_(True)
    scale = helps.var(correction=0).clamp_min(1e-12)
    optimiser = torch.optim.Adam([weight, slope], lr=0.05)
    for _ in range(_STEPS):
        g = _gate(inputs, weight)
        error = ((g * slope * scores).sum(dim=1) - helps).square().mean() / scale
        balance = -(g.mean(dim=0) * n_experts).log().mean()
        optimiser.zero_grad()
        (error + _BALANCE * balance).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return weight.detach(), slope.detach()
