"""Item popularity: the bands cold, mid and popular, and how unequal a distribution is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bands", "gini", "popularity_band", "popularity_bands"]

# The head that gets half of everything is 'popular', the tail that gets a tenth is 'cold': shares, not
# counts, so that the bands mean the same on a thousand sessions and on a hundred million.
_POPULAR_SHARE = 0.5
_COLD_SHARE = 0.1


@dataclass(frozen=True)
class Bands:
    """Thresholds on the number of sessions that hold an item.

    Attributes:
        cold_max: an item in at most so many sessions is cold.
        popular_min: an item in at least so many sessions is popular.
    """

    cold_max: int
    popular_min: int

    def cold(self, item_sessions: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """By item, whether it is cold; shape (n_items,)."""
        return item_sessions <= self.cold_max

    def name(self, sessions: int) -> str:
        """The band's name for one item.

        >>> Bands(cold_max=2, popular_min=10).name(2)
        'cold'
        """
        if sessions <= self.cold_max:
            return "cold"
        return "popular" if sessions >= self.popular_min else "mid"


def popularity_bands(item_sessions: npt.NDArray[np.int64]) -> Bands:
    """Bands by share: the tail with a tenth of all session-item pairs is cold, the head with half popular.

    Items of equal popularity are always in one band; no item is both cold and popular, and the most
    popular items are never cold. Where the least popular alone hold more than a tenth, they are the cold ones
    (a long tail of items that came once); where all are equally popular, all are mid.

    Args:
        item_sessions: number of sessions that hold each item, shape (n_items,), in any order.

    >>> popularity_bands(np.array([50, 20, 10, 10, 5, 1, 1, 1, 1, 1]))
    Bands(cold_max=5, popular_min=50)
    >>> popularity_bands(np.array([50, 50, 2, 2, *[1] * 60]))
    Bands(cold_max=1, popular_min=50)
    """
    counts, n = np.unique(np.asarray(item_sessions, dtype=np.int64), return_counts=True)
    mass = counts * n
    share = np.cumsum(mass) / mass.sum()
    # Counts whose whole tail, themselves included, holds at most a tenth.
    tail = counts[share <= _COLD_SHARE]
    if counts.size == 1:
        return Bands(0, int(counts[0]) + 1)
    cold_max = int(tail[-1]) if tail.size else int(counts[0])
    above = 1.0 - np.concatenate([[0.0], share[:-1]])
    head = counts[above <= _POPULAR_SHARE]
    popular_min = int(head[0]) if head.size else int(counts[-1])
    return Bands(cold_max, max(popular_min, cold_max + 1))


def popularity_band(sessions: npt.NDArray[np.int64]) -> npt.NDArray[np.int32]:
    """Popularity band of items: floor(log2(number of sessions)), 0 for none.

    Examples:
        >>> popularity_band(np.array([1, 2, 3, 4, 1000])).tolist()
        [0, 1, 1, 2, 9]
    """
    # frexp is exact where log2 could round up just below a power of two
    return (np.frexp(np.maximum(sessions, 1).astype(np.float64))[1] - 1).astype(np.int32)


def gini(values: npt.NDArray[np.int64]) -> float:
    """Gini coefficient of non-negative counts: 0 where all are equal, near 1 where one has all.

    >>> gini(np.array([1, 1, 1, 1]))
    0.0
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    total = ordered.sum()
    if ordered.size == 0 or total == 0:
        return 0.0
    n = ordered.size
    position = np.arange(1, n + 1)
    return float(round((2 * (position * ordered).sum() / (n * total)) - (n + 1) / n, 12))
