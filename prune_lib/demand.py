"""Demand: how many sessions to come will hold a pattern, learned from how that went before.

Recency-weighted counts say how often a pattern came; what a model is asked for is what comes next. The
input itself knows how one follows from the other: at `CUTS`, places in its past, it says what was known of a
pattern then (when it last came, how often, and how often of late, by four half-lives) and in how many
sessions of the following `HORIZON` it came. Boosted trees with Poisson's loss (Friedman, Annals of
Statistics, 2001; scikit-learn's are used) learn the one from the other, and are asked what the present says
of the future.

An item that has not been seen for long is worth little, however many sessions held it once; one that is new
and often asked for is worth more than its count. Of a transition its own counts say little, for most have
come two or three times: it borrows evidence from its two items, what is known of them being known of it, too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces
from prune_lib.patterns import Shape

if TYPE_CHECKING:
    from pyspark import Broadcast
    from sklearn.ensemble import HistGradientBoostingRegressor

__all__ = [
    "CUTS",
    "HALF_LIVES",
    "HORIZON",
    "KNOWN",
    "Foresight",
    "demand_of",
    "known_of",
    "learned",
    "remembered",
    "weights_by",
]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: What is foreseen, as a share of the sessions: the next tenth.
HORIZON = 0.1
#: Ages at which the past is asked what followed.
CUTS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45)
#: Of the recency-weighted counts that are known of a pattern.
HALF_LIVES = (0.02, 0.05, 0.2, 1.0)
#: What is known of a pattern: age of its newest session (2^-30), sessions, recency by half-life (2^-32).
KNOWN = ("age", "sessions", *(f"recency_{k}" for k in range(len(HALF_LIVES))))
# Sums are integers, so that partitions do not matter: recency in units of 2^-32, ages of 2^-30.
_RECENCY_UNIT, _AGE_UNIT = 2.0**32, 2.0**30
# Older than anything: a pattern that had not come yet.
_NEVER = 2**31
# Items, and transitions, that the trees learn from, at most, and rows without which they learn nothing.
_LEARNED_FROM, _LEAST = 25_000, 2_000
# Of the age of its last session, sessions and recencies: which way an item's demand goes with each at least.
_MONOTONE = (-1, 0, 1, 1, 1, 0)
# What of `KNOWN` a transition is told of its first item and of its second: more of what it leads to.
_OF_FIRST, _OF_SECOND = (0, 1, 3, 4), (0, 1, 2, 3, 4)
# The half-life whose recency of the transition is told as a share of its first item's.
_SHARE = KNOWN.index("recency_2")
# A pattern that came once in a million sessions is worth something still.
_FLOOR = 1e-6
# Rows that are predicted at once: some 10 MB of what is known of them.
_ROWS = 2**16


def known_of(place: Ints, age: Floats, n: int, cut: float) -> Ints:
    """What some edges say of their patterns at a time in the past: sums, and the smallest age.

    Args:
        place: pattern by edge, each at most once a session, in [0, n), shape (E,).
        age: of the edge's session, 0 for the newest and 1 for the oldest, shape (E,).
        n: number of patterns.
        cut: the age that is the present.

    Returns:
        Shape (n, 6 + 1): `KNOWN` (an age of `_NEVER` where there is no session), and sessions of the horizon
        that followed.
    """
    before = age >= cut
    pattern, since = place[before], age[before] - cut
    known = np.zeros((n, len(KNOWN) + 1), dtype=np.int64)
    known[:, 0] = _NEVER
    np.minimum.at(known[:, 0], pattern, np.rint(since * _AGE_UNIT).astype(np.int64))
    known[:, 1] = np.bincount(pattern, minlength=n)
    for column, half_life in enumerate(HALF_LIVES, 2):
        amount = np.rint(np.exp(-since / half_life) * _RECENCY_UNIT)
        # Far below 2^53 in a batch: exact.
        known[:, column] = np.bincount(pattern, amount, n).astype(np.int64)
    followed = ~before & (age >= cut - HORIZON)
    known[:, -1] = np.bincount(place[followed], minlength=n)
    return known


def _of_items(known: Ints) -> Floats:
    """What is known of an item, in units that mean something, shape (..., 6)."""
    features: Floats = known[..., : len(KNOWN)] / [_AGE_UNIT, 1.0, *[_RECENCY_UNIT] * len(HALF_LIVES)]
    return features


def _of_transitions(own: Ints, first: Ints, second: Ints) -> Floats:
    """What is known of a transition, and of its two items, shape (..., 16)."""
    mine, one, two = _of_items(own), _of_items(first), _of_items(second)
    share = mine[..., _SHARE] / np.maximum(one[..., _SHARE], 1 / _RECENCY_UNIT)
    features: Floats = np.concatenate(
        [mine, one[..., _OF_FIRST], two[..., _OF_SECOND], share[..., None]], axis=-1
    )
    return features


def remembered(codes: Ints, n_items: int) -> Ints:
    """The patterns whose past is learned from, at most some 25,000 of either family, and those' items.

    Args:
        codes: of all patterns, ascending, see `patterns.session_edges`.
        n_items: number of items.

    Returns:
        Codes, ascending.
    """
    pairs = codes[codes >= n_items]
    some = pairs[:: _every(pairs.size)]
    first, second = np.divmod(some - n_items, n_items)
    codes = np.concatenate([np.arange(0, n_items, _every(n_items)), first, second, some])
    result: Ints = np.unique(codes)
    return result


def _every(n: int) -> int:
    """The step through n patterns that meets no more than are learned from."""
    return max(1, -(-n // _LEARNED_FROM))


@dataclass(frozen=True)
class Foresight:
    """What the past has taught.

    Attributes:
        n_items: number of items.
        items: what is known of them now, shape (n_items, 6).
        of_item: the trees for items.
        of_transition: the trees for transitions.
    """

    n_items: int
    items: Ints
    of_item: HistGradientBoostingRegressor
    of_transition: HistGradientBoostingRegressor

    def expected(self, code: Ints, known: Ints) -> Floats:
        """Sessions of the next `HORIZON` that will hold each of some patterns.

        Args:
            code: of the patterns, shape (V,).
            known: of each, shape (V, 6).

        Returns:
            Expected sessions, above 0, shape (V,).
        """
        found = np.empty(code.size)
        for start in range(0, code.size, _ROWS):
            part = slice(start, start + _ROWS)
            found[part] = self._expected(code[part], known[part])
        return np.maximum(found, _FLOOR)

    def _expected(self, code: Ints, known: Ints) -> Floats:
        found = np.empty(code.size)
        is_item = code < self.n_items
        if is_item.any():
            found[is_item] = self.of_item.predict(_of_items(known[is_item]))
        if not is_item.all():
            first, second = np.divmod(code[~is_item] - self.n_items, self.n_items)
            told = _of_transitions(known[~is_item], self.items[first], self.items[second])
            found[~is_item] = self.of_transition.predict(told)
        return found


def learned(codes: Ints, past: Ints, items: Ints, min_support: int) -> Foresight | None:
    """Learn what follows from what is known.

    Args:
        codes: the patterns of `remembered`, ascending, shape (P,).
        past: what was known of each at each cut, and what followed, shape (P, cuts, 6 + 1).
        items: what is known of all items, shape (n_items, 6).
        min_support: sessions that hold a transition, at least: rarer ones are no patterns, now or then.

    Returns:
        The foresight; None where the past has too few patterns to learn from.

    Cost: seconds for 25,000 items and transitions of 8 cuts.
    """
    n_items = len(items)
    is_item = codes < n_items
    some = is_item & (codes % _every(n_items) == 0)
    of_item = _trees(_of_items(past[some]), past[some], 1, _MONOTONE)
    # Their items are among the codes.
    first, second = (np.searchsorted(codes, item) for item in np.divmod(codes[~is_item] - n_items, n_items))
    told = _of_transitions(past[~is_item], past[first], past[second])
    of_transition = _trees(told, past[~is_item], max(min_support, 2))
    if of_item is None or of_transition is None:
        return None
    return Foresight(n_items, items, of_item, of_transition)


def _trees(
    features: Floats, past: Ints, support: int, monotone: Sequence[int] | None = None
) -> HistGradientBoostingRegressor | None:
    """Trees that say from what is known what follows, of the patterns that enough sessions held by then."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    there = past[..., 1] >= support
    rows, followed = features[there], past[there][:, -1].astype(np.float64)
    if len(rows) < _LEAST or not followed.any():
        return None
    model = HistGradientBoostingRegressor(
        loss="poisson",
        max_iter=100,
        learning_rate=0.1,
        min_samples_leaf=100,
        monotonic_cst=monotone,
        early_stopping=False,
        random_state=0,  # of no matter: nothing is drawn from so few rows
    )
    return model.fit(rows, followed)


def weights_by(expected: Floats, raw: Floats, is_item: npt.NDArray[np.bool_], exponent: float) -> Floats:
    """What patterns weigh by the demand that is foreseen, before families are scaled.

    An item weighs its expected sessions^exponent. A forecast of a rare transition is a guess: it weighs the
    geometric mean of that and of its own count, which leaves one out and keeps it in bounds.

    Args:
        expected: sessions that will hold each pattern, shape (V,).
        raw: weights by counts, shape (V,).
        is_item: shape (V,).
        exponent: of items.

    Returns:
        Shape (V,).
    """
    weights: Floats = np.where(is_item, expected**exponent, np.sqrt(raw * expected))
    return weights


def demand_of(
    sessions: DataFrame, counted: DataFrame, codes: Ints, shape: Shape, min_support: int
) -> Floats | None:
    """The forecast for the patterns of an input.

    Args:
        sessions: items ARRAY<INT>, age DOUBLE, known of all.
        counted: what is known of each pattern now: code BIGINT, `KNOWN` BIGINT. Settled.
        codes: of all patterns, ascending, shape (V,).
        shape: what patterns are.
        min_support: sessions that hold a transition, at least.

    Returns:
        Sessions of the next `HORIZON` that are expected to hold each, shape (V,); None where there are too
        few patterns to learn from.

    Cost: a pass over the edges, a shuffle of a row for each batch and pattern that is learned from; two over
    the patterns; six numbers an item, one a pattern, and the past of at most 100,000 patterns on the driver.
    """
    n_items = shape.n_items
    of_items = int(np.searchsorted(codes, n_items))
    if min(of_items, codes.size - of_items) * len(CUTS) < _LEAST:  # too few, whatever their past
        return None
    some = remembered(codes, n_items)
    past = np.zeros((some.size, len(CUTS), len(KNOWN) + 1), dtype=np.int64)
    past[..., 0] = _NEVER
    context = sessions.sparkSession.sparkContext
    shared = context.broadcast(some)
    _fill(past.reshape(some.size, -1), _past_of(sessions, shared, shape).toPandas())
    shared.destroy()
    items = np.zeros((n_items, len(KNOWN)), dtype=np.int64)
    items[:, 0] = _NEVER  # such as an item that is only ever a session's first
    of_item = counted.filter(F.col("code") < n_items)
    _fill(items, of_item.select(F.col("code").alias("place"), *KNOWN).toPandas())
    foresight = learned(some, past, items, min_support)
    if foresight is None:
        return None
    found = _foreseen(counted, foresight)
    expected = np.zeros(codes.size)
    expected[np.searchsorted(codes, found["code"])] = found["expected"]
    return expected


def _fill(table: Ints, found: pd.DataFrame) -> None:
    """Put rows where their place says."""
    table[found["place"].to_numpy()] = found.drop(columns="place").to_numpy(np.int64)


def _past_of(sessions: DataFrame, codes: Broadcast[Ints], shape: Shape) -> DataFrame:
    """`known_of` of some patterns at each cut: place among the codes BIGINT, and sums BIGINT."""
    one = len(KNOWN) + 1
    names = [f"c{k}" for k in range(len(CUTS) * one)]

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        known = codes.value
        for batch in in_pieces(batches):
            code, _, edges = shape.edges(batch)
            age = np.repeat(batch.column("age").to_numpy(), edges)
            at = np.minimum(np.searchsorted(known, code), known.size - 1)
            some = known[at] == code
            held, place = np.unique(at[some], return_inverse=True)
            table = np.concatenate([known_of(place, age[some], held.size, cut) for cut in CUTS], axis=1)
            yield pa.RecordBatch.from_arrays(
                [pa.array(held), *(pa.array(column) for column in table.T)], names=["place", *names]
            )

    schema = "place bigint, " + ", ".join(f"{name} bigint" for name in names)
    return (
        sessions.select("items", "age")
        .mapInArrow(run, schema)
        .groupBy("place")
        .agg(*((F.sum if k % one else F.min)(name).alias(name) for k, name in enumerate(names)))
    )


def _foreseen(counted: DataFrame, foresight: Foresight) -> pd.DataFrame:
    """The forecast of every pattern: code, expected."""
    shared = counted.sparkSession.sparkContext.broadcast(foresight)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in batches:
            known = np.stack([batch.column(name).to_numpy() for name in KNOWN], axis=1)
            code = batch.column("code")
            expected = shared.value.expected(code.to_numpy(), known)
            yield pa.RecordBatch.from_arrays([code, pa.array(expected)], names=["code", "expected"])

    told = counted.select("code", *KNOWN).mapInArrow(run, "code bigint, expected double")
    table: pd.DataFrame = told.toPandas()
    shared.destroy()
    return table
