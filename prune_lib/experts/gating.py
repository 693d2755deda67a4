"""Training of the gate over frozen experts, and what it is worth on predictions that nothing has seen."""

from __future__ import annotations

import copy
import logging
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from prune_lib.experts.fairness import fairness
from prune_lib.experts.feed import Feed
from prune_lib.experts.fitting import first_positions
from prune_lib.experts.mixture import Mixture
from prune_lib.experts.models import Gate
from prune_lib.experts.settings import EXACT_LIMIT, EXPERTS, NEGATIVES, SPREADS, TrainSettings
from prune_lib.popularity import popularity_band

__all__ = ["LIKELIHOOD", "fit_gate"]

log = logging.getLogger(__name__)

#: How the metrics' names of likelihoods begin.
LIKELIHOOD = "log_likelihood_"
#: Parts of the gate's cross-validation, and passes without a gain after which it ends.
_GATE_PARTS = 5
_GATE_PATIENCE = 5
#: Held-out predictions, about, on which the estimated normaliser is compared with the exact one.
_AGREEMENT_POSITIONS = 2000


def fit_gate(
    mixture: Mixture,
    parts: dict[str, Feed],
    settings: TrainSettings,
    fold: int,
    popularity: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Train the gate of a mixture whose experts are frozen; return held-out likelihoods and fairness."""
    n_items = mixture.n_items
    own, held = (
        list(first_positions(parts[part], settings.gate_positions, n_items)) for part in ("gate", "holdout")
    )
    positions = sum(int((items[:, 1:] != n_items).sum()) for items in (*own, *held))
    exact = positions * n_items * len(EXPERTS) <= EXACT_LIMIT
    mixture.prepare(negatives=0 if exact else NEGATIVES)
    inputs, log_p = mixture.gate_inputs(own)
    held_inputs, held_log_p = mixture.gate_inputs(held)
    gate = mixture.gate
    _train_gate(gate, inputs, log_p, settings.gate_epochs)
    gate.eval().requires_grad_(False)
    some = held or own  # both may be empty: few sessions, by chance none of them in either
    agreement = _agreement(mixture, some, popularity) if some and n_items > NEGATIVES else {}
    mixture.forget()  # they hold the weights once more, and where these were trained
    if not len(held_inputs):
        # What the gate was trained on says nothing of how good it is.
        left = "how good its mixture is is not known" if len(inputs) else "its gate stays a uniform mixture"
        log.warning("fold %d has no held-out positions: %s", fold, left)
        return {"held_out_positions": 0}
    with torch.inference_mode():
        uniform = float(torch.logsumexp(held_log_p - np.log(len(EXPERTS)), dim=1).mean())
        weights = gate(held_inputs)
    gated = _gated(gate, held_inputs, held_log_p)
    metrics: dict[str, Any] = {
        "held_out_positions": len(held_inputs),
        "normaliser": "exact" if exact else "estimated",
    }
    for i, kind in enumerate(EXPERTS):
        metrics[f"{LIKELIHOOD}{kind}"] = round(float(held_log_p[:, i].mean()), 4)
        metrics[f"gate_{kind}"] = round(float(weights[:, i].exp().mean()), 4)
    targets = torch.cat([items[:, 1:][items[:, 1:] != n_items] for items in held]).numpy()
    return metrics | {
        f"{LIKELIHOOD}uniform": round(uniform, 4),
        f"{LIKELIHOOD}gate": round(gated, 4),
        "fairness": fairness(
            held_log_p.double().cpu().numpy(), weights.double().cpu().numpy(), popularity[targets]
        ),
        **agreement,
    }


def _agreement(
    mixture: Mixture, batches: list[Tensor], popularity: npt.NDArray[np.int64]
) -> dict[str, float]:
    """Spearman of scores by the estimated normaliser with those by the exact one: losses, and SPREADS.

    Of predictions, `_AGREEMENT_POSITIONS` about; means over a session's predictions agree better.
    """
    some, count = [], 0
    for items in batches:
        if count < _AGREEMENT_POSITIONS:
            some.append(items[:_AGREEMENT_POSITIONS])
            count += int((some[-1][:, 1:] != mixture.n_items).sum())
    targets = torch.cat([items[:, 1:][items[:, 1:] != mixture.n_items] for items in some]).numpy()
    if len(targets) < 2:
        return {}
    bands = popularity_band(popularity[targets])
    device = mixture.log_popularity.device
    scores = []
    for negatives in (0, NEGATIVES):
        mixture.prepare(negatives=negatives)
        found = [mixture.with_spread(items.to(device))[1:] for items in some]
        log_p, log_g, spread = (torch.cat(part).double().cpu() for part in zip(*found, strict=True))
        loss = -torch.logsumexp(log_g + log_p, dim=1).numpy()
        of_band = np.bincount(bands, weights=loss) / np.maximum(np.bincount(bands), 1)
        by_name = {"raw": loss, "adjusted": loss - of_band[bands]}
        by_name |= {name: spread[:, k].numpy() for k, name in enumerate(SPREADS)}
        scores.append(pd.DataFrame(by_name))
    exact, estimated = scores
    return {
        f"estimated_normaliser_spearman_{name}": round(
            float(exact[name].corr(estimated[name], method="spearman")), 4
        )
        for name in exact
    }


def _train_gate(gate: Gate, inputs: Tensor, log_p: Tensor, epochs: int) -> None:
    """Train a gate for as many passes as are best for the predictions that it was not trained on.

    Those are found by cross-validation in `_GATE_PARTS` parts: a gate is cheap, its predictions may be few,
    and a tenth of them would be too few to decide on. Where no pass is better than none, the gate stays the
    uniform mixture that it starts as.

    Args:
        gate: untrained.
        inputs: see `gate_features`, [N, 6].
        log_p: of the targets under the experts [N, 3].
        epochs: passes at most.
    """
    if len(inputs) < _GATE_PARTS:
        return
    gate.standardise(inputs)
    part = torch.arange(len(inputs), device=inputs.device) * _GATE_PARTS // len(inputs)
    tried = [(_GateLearner(copy.deepcopy(gate)), part == k) for k in range(_GATE_PARTS)]
    best, wanted = _gated(gate, inputs, log_p), 0
    for epoch in range(1, epochs + 1):
        held = 0.0
        for learner, out in tried:
            learner.pass_over(inputs[~out], log_p[~out])
            held += _gated(learner.gate, inputs[out], log_p[out]) * int(out.sum())
        if held / len(inputs) > best + 1e-5:
            best, wanted = held / len(inputs), epoch
        elif epoch - wanted >= _GATE_PATIENCE:
            break
    learner = _GateLearner(gate)
    for _ in range(wanted):
        learner.pass_over(inputs, log_p)


class _GateLearner:
    """A gate and its optimiser."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._optimiser = torch.optim.AdamW(gate.parameters(), lr=1e-2, weight_decay=0.01)

    def pass_over(self, inputs: Tensor, log_p: Tensor) -> None:
        for rows in torch.split(torch.randperm(len(inputs)).to(inputs.device), 512):
            self._optimiser.zero_grad(set_to_none=True)
            loss = -torch.logsumexp(self.gate(inputs[rows]) + log_p[rows], dim=1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()


@torch.inference_mode()
def _gated(gate: Gate, inputs: Tensor, log_p: Tensor) -> float:
    """Mean log-likelihood of the mixture."""
    return float(torch.logsumexp(gate(inputs) + log_p, dim=1).mean())
