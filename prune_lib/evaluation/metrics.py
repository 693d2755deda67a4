"""Recall@20, MRR@20 and NDCG@20 by the library ir-measures; coverage and popularity of what is recommended.

Every case has one relevant item, so that a measure is a function of that item's rank alone. The library
computes it once for each rank, and millions of cases look it up.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.ranking import AT

__all__ = ["METRICS", "SessionSums", "coverage", "mean_popularity", "session_sums", "value_by_rank"]

Counts = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

METRICS = ("recall@20", "mrr@20", "ndcg@20")


@cache
def value_by_rank(at: int = AT) -> dict[str, Floats]:
    """A case's value of every metric, by the rank of its target, from ir-measures.

    Args:
        at: the cut-off.

    Returns:
        Metric ("recall@20", for the cut-off 20) to values of shape (at + 2,): index r is rank r, index
        at + 1 any rank beyond the cut-off; index 0 is no rank and NaN. Shared and read-only.

    Source: MacAvaney, Macdonald and Ounis, "Streamlining evaluation with ir-measures", ECIR 2022.

    >>> value_by_rank()["mrr@20"][[1, 2, 20, 21]]
    array([1.  , 0.5 , 0.05, 0.  ])
    """
    import ir_measures
    from ir_measures import RR, R, nDCG

    # One query for each rank: its one relevant document there, and others in all other places.
    places = range(1, at + 2)
    judged = {str(rank): {"target": 1} for rank in places}
    run = {
        str(rank): {"target" if place == rank else f"other{place}": float(-place) for place in places}
        for rank in places
    }
    names = {R @ at: f"recall@{at}", RR @ at: f"mrr@{at}", nDCG @ at: f"ndcg@{at}"}
    values = {name: np.full(at + 2, np.nan) for name in names.values()}
    for found in ir_measures.iter_calc(list(names), judged, run):
        values[names[found.measure]][int(found.query_id)] = found.value
    for table in values.values():
        table.flags.writeable = False
    return values


@dataclass(frozen=True, eq=False)
class SessionSums:
    """Metrics summed by test session, the unit of the confidence intervals.

    Attributes:
        counts: number of cases, by session, shape (S,).
        sums: metric to sums over a session's cases, shape (S,) each.
    """

    counts: Counts
    sums: dict[str, Floats]

    def mean(self, metric: str) -> float:
        """The metric's mean over all cases; NaN where there is none."""
        cases = int(self.counts.sum())
        return float(self.sums[metric].sum()) / cases if cases else float("nan")


def session_sums(
    ranks: npt.NDArray[np.int32], cases: Cases, mask: npt.NDArray[np.bool_] | None = None
) -> SessionSums:
    """Number of cases and sum of every metric, by test session.

    Args:
        ranks: place of the target, 1 the first, shape (N,).
        cases: the test set.
        mask: by case, whether it counts (a popularity band of the target), shape (N,); None: all.
    """
    session = cases.session_of
    if mask is not None:
        ranks, session = ranks[mask], session[mask]
    place = np.minimum(ranks, AT + 1)
    sums: dict[str, Floats] = {
        metric: np.bincount(session, table[place], minlength=cases.n_sessions).astype(np.float64, copy=False)
        for metric, table in value_by_rank().items()
    }
    return SessionSums(np.bincount(session, minlength=cases.n_sessions), sums)


def coverage(recommended: Counts) -> float:
    """Share of the vocabulary that is in at least one list.

    Args:
        recommended: how often an item is in a list, shape (n_items,).

    >>> coverage(np.array([3, 0, 1, 0]))
    0.5
    """
    return float((recommended > 0).mean())


def mean_popularity(recommended: Counts, item_sessions: Counts) -> float:
    """Mean popularity percentile of what is recommended: 0.5 for lists drawn evenly from all items.

    An item's percentile is the share of items that are less popular, and half the share of those as
    popular as it, itself included.

    Args:
        recommended: how often an item is in a list, shape (n_items,).
        item_sessions: number of sessions that hold each item, always of the full table, or else tables
            could not be compared, shape (n_items,).

    Returns:
        Mean over all places in the lists, between 0 and 1; NaN without lists.

    >>> mean_popularity(np.array([0, 0, 0, 8]), np.array([1, 2, 3, 4]))
    0.875
    """
    _, level, items = np.unique(item_sessions, return_inverse=True, return_counts=True)
    percentile = ((np.cumsum(items) - items / 2) / item_sessions.size)[level]
    slots = int(recommended.sum())
    return float(recommended @ percentile) / slots if slots else float("nan")
