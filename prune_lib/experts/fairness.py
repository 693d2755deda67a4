"""Whether a score is fair to rare items: how it goes with the popularity of what is to be predicted.

A cold target is improbable under any model of an unbalanced catalogue. A score that says no more than that
prunes by popularity: its correlation with log popularity is far below 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from prune_lib.experts.settings import EXPERTS
from prune_lib.popularity import popularity_band

__all__ = ["fairness"]

Floats = npt.NDArray[np.float64]

_GROUPS = 10
_DECIMALS = 4


def fairness(log_p: Floats, log_g: Floats, popularity: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Scores of single predictions by the popularity of their targets.

    Args:
        log_p: log-probability of each target under each expert, in the order of EXPERTS, shape (N, 3), N > 0.
        log_g: log of the gate's weights, shape (N, 3).
        popularity: sessions that hold the target, shape (N,).

    Returns:
        `spearman`: of each expert's loss, the mixture's and the adjusted one's (the mixture's less the mean
        of the target's popularity band) with the target's popularity, 0 where either is constant. `deciles`:
        the predictions in ten parts of equal size by popularity, fewer where many are equal, rarest first:
        popularity `from` and `to`, positions, mean losses, disagreement (standard deviation of the experts'
        losses) and gate weights. Rounded to 1e-4. Cost: a few sorts.
    """
    mixture = -np.logaddexp.reduce(log_p + log_g, axis=1)
    band = popularity_band(popularity)
    of_band = np.bincount(band, weights=mixture) / np.maximum(np.bincount(band), 1)
    scores = pd.DataFrame(
        {
            **{f"loss_{kind}": -log_p[:, e] for e, kind in enumerate(EXPERTS)},
            "loss_mixture": mixture,
            "adjusted": mixture - of_band[band],
            "disagreement": log_p.std(axis=1),
            **{f"gate_{kind}": np.exp(log_g[:, e]) for e, kind in enumerate(EXPERTS)},
        }
    )
    ranked = scores.iloc[:, : len(EXPERTS) + 2].rank()
    # Where a score or the popularity is constant nothing goes with anything.
    varied = ranked.columns[ranked.nunique() > 1] if len(np.unique(popularity)) > 1 else ranked.columns[:0]
    spearman = ranked[varied].corrwith(pd.Series(popularity).rank()).reindex(ranked.columns, fill_value=0.0)
    group = pd.qcut(popularity, _GROUPS, labels=False, duplicates="drop")
    deciles = scores.assign(popularity=popularity).groupby(np.nan_to_num(group))
    means = deciles[list(scores.columns)].mean()
    span = deciles["popularity"].agg(["min", "max", "size"])
    return {
        "spearman": {
            name.removeprefix("loss_"): round(float(value), _DECIMALS) for name, value in spearman.items()
        },
        "deciles": [
            {"from": int(low), "to": int(high), "positions": int(n)}
            | {name: round(float(value), _DECIMALS) for name, value in row.items()}
            for (low, high, n), (_, row) in zip(span.to_numpy(), means.iterrows(), strict=True)
        ],
    }
