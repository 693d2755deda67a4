"""How experts came to a prediction: scores over the epochs of their training. Higher = harder.

With p_k the uniform mixture's probability of the target after epoch k of K, by experts that never see the
session (it is of the other fold), and an expert that stopped standing as it stopped:

    forgetting     sum over k > 1 of max(0, log p_{k-1} - log p_k), nats: what was known and lost again. The
                   smooth form of counting how often a right answer turns wrong (Toneva et al., ICLR 2019):
                   a right answer among many thousand items is too rare to be counted
    variability    standard deviation of log p_k over the second half of the epochs, nats: the dynamic
                   uncertainty of He et al. (2024) and DUAL (Cho et al., ICML 2025), of log p in the place of
                   p, whose deviation says how probable a target is before anything else; the first half, in
                   which everything is learned, left out

With a single epoch nothing varies, and both are 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import safetensors.torch
import torch
from torch import Tensor

from prune_lib.experts.models import Expert
from prune_lib.experts.settings import EXPERTS

__all__ = ["dynamics_of", "snapshots_from_bytes", "snapshots_to_bytes"]


def dynamics_of(log_p: Tensor) -> Tensor:
    """Forgetting and variability [N, 2], in the order of DYNAMICS, of log p by epoch [N, K]."""
    log_p = log_p.double()
    lost = (log_p[:, :-1] - log_p[:, 1:]).clamp(min=0.0).sum(dim=1)
    late = log_p[:, log_p.shape[1] // 2 :] if log_p.shape[1] > 2 else log_p
    return torch.stack([lost, late.std(dim=1, correction=0)], dim=1)


def snapshots_to_bytes(epochs: Sequence[dict[str, dict[str, Tensor]]]) -> bytes:
    """Return the content of a safetensors file: weights by epoch and expert, those that changed only."""
    tensors: dict[str, Tensor] = {}
    for k, of_epoch in enumerate(epochs):
        for kind, weights in of_epoch.items():
            tensors |= {f"{k}.{kind}.{name}": value.contiguous() for name, value in weights.items()}
    return safetensors.torch.save(tensors)


def snapshots_from_bytes(content: bytes, like: Sequence[Expert]) -> list[list[Expert]]:
    """Return the frozen experts of every epoch, in the order of EXPERTS.

    Args:
        content: what `snapshots_to_bytes` returned.
        like: the fold's experts, whose sizes they share.
    """
    tensors = safetensors.torch.load(content)
    by_expert: dict[tuple[int, str], dict[str, Tensor]] = {}
    for name, value in tensors.items():
        epoch, kind, weight = name.split(".", 2)
        by_expert.setdefault((int(epoch), kind), {})[weight] = value
    found: list[list[Expert]] = []
    last: dict[str, Expert] = {}
    max_length, dim = _sizes(like)
    for k in range(1 + max((epoch for epoch, _ in by_expert), default=-1)):
        for kind in EXPERTS:
            if (k, kind) in by_expert:
                with torch.device("meta"):
                    expert = Expert(kind, like[0].n_items, dim, max_length, 0.0)
                expert.load_state_dict(by_expert[k, kind], assign=True)
                last[kind] = expert.eval().requires_grad_(False)
        found.append([last[kind] for kind in EXPERTS])
    return found


def _sizes(experts: Sequence[Expert]) -> tuple[int, int]:
    """Return the longest session and the width of a fold's experts."""
    positions = experts[EXPERTS.index("transformer")].encoder.state_dict()["positions"]
    return int(positions.shape[0]), int(positions.shape[1])
