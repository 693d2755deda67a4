"""Confidence intervals by bootstrap over test sessions.

The prefixes of a session are not independent cases, and treating them so makes intervals too narrow.
Whole sessions are drawn, with all their cases (the cluster bootstrap: Field and Welsh, "Bootstrapping
clustered data", J. R. Stat. Soc. B 69, 2007), and what is compared is compared on the same draws.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

__all__ = ["Interval", "across_seeds", "difference", "interval", "relative"]

Numbers = npt.NDArray[np.int64] | npt.NDArray[np.float64]
Floats = npt.NDArray[np.float64]

# Resamples drawn at once: 20 of 16,000 sessions are 8 MB, and more at once is slower.
_BATCH = 20


@dataclass(frozen=True)
class Interval:
    """An estimate and its confidence interval; NaN where the data do not define it."""

    mean: float
    low: float
    high: float


def interval(
    counts: Numbers, sums: Numbers, *, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """A metric's mean over cases, sum of sums / sum of counts, by percentile bootstrap over sessions.

    Args:
        counts: number of cases, by session, shape (S,).
        sums: the metric's sums, shape (S,); or (runs, S) for several seeds of a model on the same
            sessions: their mean is the session's value.
        level: share of the distribution between the bounds.
        resamples: how often S sessions are drawn with replacement.
        seed: of the draws; equal seeds draw the same sessions.

    Returns:
        The mean and its bounds. Sessions without a case are no part of the sample; with a single
        session there are no bounds.

    Cost: 0.1 s for 16,000 sessions and 1,000 resamples.
    """
    return _ratio(counts > 0, counts, _by_session(sums), level, resamples, seed)


def difference(
    counts: Numbers,
    sums_a: Numbers,
    sums_b: Numbers,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of a less mean of b, paired: both on the same sessions; otherwise as `interval`."""
    gap = _by_session(sums_a) - _by_session(sums_b)
    return _ratio(counts > 0, counts, gap, level, resamples, seed)


def relative(
    counts: Numbers,
    sums_a: Numbers,
    sums_b: Numbers,
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Mean of a over mean of b, paired: the share of b's performance that a has; else as `interval`.

    All is NaN where b's mean is 0, and the bounds are where b is so rare that a resample can lack it.
    """
    return _ratio(counts > 0, _by_session(sums_b), _by_session(sums_a), level, resamples, seed)


def across_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation (n - 1) of a metric over training seeds; NaN deviation for one seed.

    >>> across_seeds([0.25, 0.5, 0.75])
    (0.5, 0.25)
    """
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation


def _by_session(sums: Numbers) -> Floats:
    """Mean over runs, where there are several: shape (runs, S) or (S,) to (S,)."""
    mean: Floats = np.atleast_2d(sums).mean(axis=0)
    return mean


def _ratio(
    sampled: npt.NDArray[np.bool_], below: Numbers, above: Numbers, level: float, resamples: int, seed: int
) -> Interval:
    """Interval of sum(above) / sum(below) over the sampled sessions: all three figures are such ratios."""
    below, above = below[sampled], above[sampled]
    if not below.sum():
        return Interval(*[float("nan")] * 3)
    mean = float(above.sum() / below.sum())
    if below.size < 2:
        return Interval(mean, float("nan"), float("nan"))
    with warnings.catch_warnings():
        # NaN bounds are this function's answer to an undefined resample, and documented.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (below, above),
            _ratio_of_sums,
            paired=True,
            vectorized=True,
            method="percentile",
            confidence_level=level,
            n_resamples=resamples,
            batch=_BATCH,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _ratio_of_sums(below: Numbers, above: Numbers, axis: int = -1) -> npt.NDArray[Any]:
    """The bootstrapped statistic; 0 / 0 and x / 0 become NaN, without numpy's warning."""
    total = below.sum(axis=axis)
    ratio: npt.NDArray[Any] = above.sum(axis=axis) / np.where(total == 0, np.nan, total)
    return ratio
