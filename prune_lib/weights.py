"""How many sessions of the input each kept session stands for: weights that give the items' counts back.

Kept sessions are no random sample: rare items are kept whole and popular ones thinned out. Weights are
calibrated to what is known of all sessions, the number of them that hold each item (calibration: Deville and
Sarndal, 1992), starting from equal ones, by generalised iterative scaling (Darroch and Ratcliff, 1972):

    w_s <- w_s (prod_{i in s} t_i / c_i)^(1 / (items of s + 1))

with t_i the sessions of the input that hold item i and c_i the sum of the weights of the kept ones that do.
After each round weights below 1 are 1, as a session stands for itself at least, and what they have above 1
is scaled so that all sum to the sessions of the input. Where no weights fit, because few kept sessions hold
many items each, it stops between.

One task holds the kept sessions' items. Where there are more than it can hold, weights stay equal.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.batches import lists_of
from prune_lib.settle import settle

__all__ = ["Weights", "calibrated", "session_weights"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

#: Rounds of scaling: the error falls fast at first; later ones only make weights more uneven.
ROUNDS = 20
# Items of kept sessions that one task holds, at most, some 40 bytes each: 10 GB.
_MOST = 250_000_000
# Two kinds of processor may differ in the last bit of an exponential, hardly ever in nine decimals.
_DECIMALS = 9


def calibrated(item: Ints, lengths: Ints, item_sessions: Ints, n_sessions: int) -> tuple[Floats, float]:
    """Weights of sessions by their items.

    Args:
        item: item indices, each at most once a session, session after session, shape (E,).
        lengths: items by session, each at least 1, shape (K,).
        item_sessions: sessions of the input by item, shape (n_items,).
        n_sessions: sessions of the input.

    Returns:
        Weights of at least 1 that sum to n_sessions, shape (K,); and their error: over the items that are
        there, the sum of |weighted count - count| as a share of the counts' sum.

    Cost: `ROUNDS` passes over the edges, some 40 bytes of memory each.

    >>> w, error = calibrated(np.array([0, 0, 1]), np.array([1, 2]), np.array([9, 1]), 9)
    >>> w.round(2).tolist(), round(error, 2)
    ([8.0, 1.0], 0.0)
    """
    row = np.repeat(np.arange(lengths.size), lengths)
    there = np.bincount(item, minlength=item_sessions.size) > 0
    wanted: Floats = np.where(there, item_sessions, 1).astype(np.float64)

    def counts(weight: Floats) -> Floats:
        found = np.bincount(item, weights=weight[row], minlength=item_sessions.size)
        result: Floats = np.where(there, found, 1.0)
        return result

    spare = n_sessions - lengths.size
    weight: Floats = np.full(lengths.size, n_sessions / lengths.size)
    for _ in range(ROUNDS):
        step = np.log(wanted / counts(weight))
        lift = np.bincount(row, weights=step[item], minlength=lengths.size)
        beyond = np.maximum(weight * np.exp(lift / (lengths + 1)) - 1, 0.0)
        if beyond.sum() == 0:  # every session stands for itself alone
            break
        weight = 1 + beyond * (spare / beyond.sum())
    weight = np.round(weight, _DECIMALS)
    error = float(np.abs(counts(weight) - wanted)[there].sum() / wanted[there].sum())
    return weight, round(error, _DECIMALS)


@dataclass(frozen=True)
class Weights:
    """Weights of the kept sessions.

    Attributes:
        rows: rank BIGINT, weight DOUBLE. Settled.
        error: of `calibrated`.
        equal: how many items the kept sessions hold, where that is more than one task does, and weights are
            the same of all; else None.
    """

    rows: DataFrame
    error: float
    equal: int | None = None


def session_weights(kept: DataFrame, item_sessions: Ints, n_sessions: int) -> Weights:
    """Weights of the kept sessions.

    Args:
        kept: settled; a row a kept session: rank BIGINT, items ARRAY<INT>.
        item_sessions: sessions of the input by item, shape (n_items,).
        n_sessions: sessions of the input.

    Cost: one task that holds the kept sessions' items.
    """
    of_session = kept.select("rank", F.array_distinct("items").alias("items"))
    held = F.coalesce(F.sum(F.size("items").cast("bigint")), F.lit(0))
    size = of_session.agg(F.count(F.lit(1)), held).first() or (0, 0)
    if size[1] > _MOST:
        return _equal(of_session, item_sessions, n_sessions / int(size[0]), int(size[1]))
    context = kept.sparkSession.sparkContext
    shared = context.broadcast(item_sessions)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        received = [b for b in batches if b.num_rows]
        if not received:
            return
        batch = pa.Table.from_batches(received).combine_chunks().to_batches()[0]
        # Sums of floats depend on their order: it is that of the ranks.
        batch = batch.take(pa.array(np.argsort(batch.column("rank").to_numpy())))
        item, lengths = lists_of(batch.column("items"))
        weight, error = calibrated(item.astype(np.int64), lengths, shared.value, n_sessions)
        ranks = batch.column("rank").to_numpy()
        yield pa.RecordBatch.from_arrays(
            # Ranks begin at 1: the error goes as rank 0.
            [pa.array(np.r_[0, ranks]), pa.array(np.r_[error, weight])],
            names=["rank", "weight"],
        )

    out = settle(of_session.coalesce(1).mapInArrow(run, "rank bigint, weight double"))
    shared.destroy()
    first = out.filter("rank = 0").first()
    return Weights(out.filter("rank > 0"), float(first["weight"]) if first else 0.0)


def _equal(of_session: DataFrame, item_sessions: Ints, weight: float, n: int) -> Weights:
    """The same weight of all. Cost: a shuffle of the items' counts."""
    weight = round(weight, _DECIMALS)
    counted = of_session.select(F.explode("items").alias("item")).groupBy("item").count().toPandas()
    counted = counted.sort_values("item")  # sums of floats depend on their order
    wanted = item_sessions[counted["item"].to_numpy()].astype(np.float64)
    error = float(np.abs(counted["count"].to_numpy() * weight - wanted).sum() / wanted.sum())
    rows = settle(of_session.select("rank", F.lit(weight).alias("weight")))
    return Weights(rows, round(error, _DECIMALS), n)
