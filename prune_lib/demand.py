"""Demand: how many sessions to come will hold an item, learned from how that went before.

Recency-weighted counts say how often an item came; what a model is asked for is what comes next. The input
itself knows how one follows from the other: at `CUTS`, places in its past, it says what was known of an item
then (when it last came, how often, and how often of late, by four half-lives) and in how many sessions of the
following `HORIZON` it came. Boosted trees with Poisson's loss (Friedman, Annals of Statistics, 2001;
scikit-learn's are used) learn the one from the other, and are asked what the present says of the future.

An item that has not been seen for long is worth little, however many sessions held it once; one that is new
and often asked for is worth more than its count. Transitions follow their items: see `moved`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.patterns import session_edges
from prune_lib.sampling.keys import lists_of

__all__ = ["CUTS", "HALF_LIVES", "HORIZON", "Demand", "demand_of", "forecast", "known_of", "moved"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: What is foreseen, as a share of the sessions: the next tenth.
HORIZON = 0.1
#: Ages at which the past is asked what followed.
CUTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
#: Of the recency-weighted counts that are known of an item.
HALF_LIVES = (0.02, 0.05, 0.2, 1.0)
# Sums are integers, so that partitions do not matter: recency in units of 2^-32, ages of 2^-30.
_RECENCY_UNIT, _AGE_UNIT = 2.0**32, 2.0**30
# Older than anything: an item that had not come yet.
_NEVER = 2**31
# Items that the regression learns from, at most, and rows without which it learns nothing.
_LEARNED_FROM, _LEAST = 25_000, 2_000
# Of the age of its last session, sessions and recencies: which way an item's demand goes with each at least.
_MONOTONE = (-1, 0, 1, 1, 1, 0)
# The half-life of the counts that transitions are weighed by.
_RECENCY = 0.2
# An item that came once in a million sessions is worth something still.
_FLOOR = 1e-6
# How far a forecast moves a transition, at most.
_MOST = 50.0


def known_of(code: Ints, age: Floats, n: int, cut: float) -> Ints:
    """What some edges say of their items at a time in the past: sums, and the smallest age.

    Args:
        code: item by edge, each at most once a session, in [0, n), shape (E,).
        age: of the edge's session, 0 for the newest and 1 for the oldest, shape (E,).
        n: number of items.
        cut: the age that is the present.

    Returns:
        Shape (n, 3 + 4): age of the newest session since then (2^-30; `_NEVER` where there is none),
        sessions, recency by half-life (2^-32), and sessions of the horizon that followed.
    """
    before = age >= cut
    item, since = code[before], age[before] - cut
    known = np.zeros((n, 3 + len(HALF_LIVES)), dtype=np.int64)
    known[:, 0] = _NEVER
    np.minimum.at(known[:, 0], item, np.rint(since * _AGE_UNIT).astype(np.int64))
    known[:, 1] = np.bincount(item, minlength=n)
    for place, half_life in enumerate(HALF_LIVES, 2):
        amount = np.rint(np.exp(-since / half_life) * _RECENCY_UNIT)
        # Far below 2^53 in a batch: exact.
        known[:, place] = np.bincount(item, amount, n).astype(np.int64)
    followed = ~before & (age >= cut - HORIZON)
    known[:, -1] = np.bincount(code[followed], minlength=n)
    return known


def _features(known: Ints) -> Floats:
    """What `known_of` found, without what followed, in its units."""
    unit = [_AGE_UNIT, 1.0, *[_RECENCY_UNIT] * len(HALF_LIVES)]
    features: Floats = known[..., :-1] / unit
    return features


def forecast(past: Ints, present: Ints) -> Floats | None:
    """Sessions of the next `HORIZON` that will hold each item.

    Args:
        past: what was known of some items at each cut, and followed, shape (items, cuts, 3 + 4).
        present: what is known of all items, shape (n, 3 + 4).

    Returns:
        Expected sessions, above 0, shape (n,); None where the past has too few items to learn from.

    Cost: seconds for 25,000 items of 8 cuts; one pass over the items then.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = past.reshape(-1, past.shape[-1])
    rows = rows[rows[:, 1] > 0]
    if len(rows) < _LEAST or not rows[:, -1].any():
        return None
    model = HistGradientBoostingRegressor(
        loss="poisson",
        max_iter=100,
        learning_rate=0.1,
        min_samples_leaf=100,
        monotonic_cst=_MONOTONE,
        early_stopping=False,
        random_state=0,  # of no matter: nothing is drawn from so few rows
    )
    model.fit(_features(rows), rows[:, -1].astype(np.float64))
    expected: Floats = np.maximum(model.predict(_features(present)), _FLOOR)
    return expected


def moved(demand: Floats, recency: Floats) -> Floats:
    """What forecasts say beyond recency-weighted counts, in proportion to the median item, shape (n,).

    A transition is expected as often as its own count says, times the geometric mean of this over its two
    items. Within a factor of 50.

    >>> moved(np.array([2.0, 1.0, 0.5]), np.array([1.0, 1.0, 1.0])).tolist()
    [2.0, 1.0, 0.5]
    """
    ratio = demand / np.maximum(recency, _FLOOR)
    known = recency > 0
    middle = float(np.median(ratio[known])) if known.any() else 1.0
    bounded: Floats = np.clip(ratio / middle, 1 / _MOST, _MOST)
    return bounded


_SUMS = ("sessions", *(f"recency_{k}" for k in range(len(HALF_LIVES))), "followed")


@dataclass(frozen=True)
class Demand:
    """What is expected of an input's target items.

    Attributes:
        expected: sessions (samples) of the next `HORIZON` by item; 0 for items that are no target, shape
            (n_items,).
        moved: of the function of that name, shape (n_items,).
    """

    expected: Floats
    moved: Floats


def demand_of(sessions: DataFrame, n_items: int, *, last_only: bool = False) -> Demand | None:
    """The forecast for the target items of an input.

    Args:
        sessions: items ARRAY<INT>, age DOUBLE, known of all.
        n_items: number of items.
        last_only: the rows are samples: only their last item is a target.

    Returns:
        The demand; None where there are too few items to learn from.

    Cost: two passes over the clicks, a shuffle of a row an item and batch; six numbers an item, and the past
    of 25,000 items, on the driver.
    """
    step = max(1, -(-n_items // _LEARNED_FROM))
    past = _summed(sessions, n_items, CUTS, last_only, step)
    present = _summed(sessions, n_items, (0.0,), last_only, 1)
    found = forecast(past, present[:, 0])
    if found is None:
        return None
    recency = present[:, 0, 2 + HALF_LIVES.index(_RECENCY)] / _RECENCY_UNIT
    expected = np.where(present[:, 0, 1] > 0, found, 0.0)
    return Demand(expected, moved(expected, recency))


def _summed(sessions: DataFrame, n_items: int, cuts: Sequence[float], last_only: bool, step: int) -> Ints:
    """`known_of` of every step-th item at each cut, shape (items, cuts, 3 + 4)."""
    width = len(cuts) * (len(_SUMS) + 1)
    names = [f"c{k}" for k in range(width)]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            items, lengths = lists_of(batch.column("items"))
            code, _, edges = session_edges(items, lengths, n_items, 0, last_only=last_only)
            age = np.repeat(batch.column("age").to_numpy(), edges)
            some = code % step == 0
            held, place = np.unique(code[some], return_inverse=True)
            table = np.stack([known_of(place, age[some], held.size, cut) for cut in cuts], axis=1)
            columns = table.reshape(held.size, width)
            yield pa.RecordBatch.from_arrays(
                [pa.array(held), *(pa.array(columns[:, k]) for k in range(width))], names=["code", *names]
            )

    schema = "code bigint, " + ", ".join(f"{name} bigint" for name in names)
    one = len(_SUMS) + 1
    table = (
        sessions.select("items", "age")
        .mapInArrow(run, schema)
        .groupBy("code")
        .agg(*((F.sum if k % one else F.min)(name).alias(name) for k, name in enumerate(names)))
        .toPandas()
    )
    found = np.zeros((-(-n_items // step), width), dtype=np.int64)
    found[:, ::one] = _NEVER
    found[table["code"].to_numpy(np.int64) // step] = table[names].to_numpy(np.int64)
    return found.reshape(len(found), len(cuts), one)
