"""The session-pattern graph: who shares what with whom, without ever pairing two sessions.

Sessions and *patterns* form a bipartite graph. Patterns come in two families:

* *target items*, the items at positions >= 2 of a session (what a next-item model learns to predict),
  edge message 1;
* *transitions*, ordered pairs of items at most `max_distance` clicks apart, the pair of an item with
  itself included, edge message sum of 1/distance.

Two sessions that share an item or a transition are neighbours in two hops. A transition that only one
session holds joins nobody and is dropped, so the edges number a small constant times the interactions;
`min_support` drops more of the rare ones.

Messages are integers in units of 1/`MESSAGE_UNIT`, pattern sums are BIGINT, and a pattern's weight is a
function of such sums: the graph is the same bit for bit whatever the number of partitions.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces
from prune_lib.collecting import beyond_results
from prune_lib.demand import KNOWN, demand_of, known_of, weights_by
from prune_lib.errors import SettingsError
from prune_lib.patterns import Shape, message_unit
from prune_lib.sessions.encoding import Encoded
from prune_lib.settings import SamplingSettings
from prune_lib.settle import settle

__all__ = ["SessionGraph", "build_graph"]

Ints = npt.NDArray[np.int64]
Demand = Literal["forecast", "recency", "count"]

_LOG = logging.getLogger(__name__)

# Recency is summed over sessions as BIGINT in units of 2^-32: 2^31 sessions fit below 2^63.
_RECENCY_UNIT = float(2**32)
# Raw weights are summed in units of 2^-20 to normalise a family: (10^9 sessions)^0.5 x 10^8 patterns fit.
_WEIGHT_UNIT = float(2**20)
# What a pattern takes at most: four numbers of its row when it is collected (five smaller ones when a choice
# is explained); the driver's arrays of it while they are sorted; a Python worker's arrays when a choice is
# explained (its weight, evidence and items, or its holders).
_ROW_BYTES, _DRIVER_BYTES, _WORKER_BYTES = 32, 150, 25


@dataclass
class SessionGraph:
    """The graph as the sampler reads it.

    Attributes:
        adjacency: a row a session: sid BIGINT, n INT, tie BIGINT, patterns ARRAY<INT>,
            messages ARRAY<INT> (units of 1/unit); both arrays empty where a session has no pattern.
            Settled.
        patterns: a row a pattern: pattern INT (dense 0..V-1), item INT, next_item INT (-1 for a target
            item), sessions, evidence BIGINT, weight DOUBLE. Settled.
        weight: weights by pattern, shape (V,); the two families sum to 1 and `lambda_items`.
        first_item: by pattern, index of the target item or of a transition's first, shape (V,).
        second_item: of a transition's second, -1 for a target item, shape (V,).
        unit: the unit of the messages (6 for a largest distance of 3).
        evidence: messages of all sessions by pattern, units of 1/unit, shape (V,).
        n_sessions: number of sessions.
        n_edges: number of session-pattern edges.
        mass: sum of all messages: what bounds every sum of them.
        demand: what the weights go by: the forecast, recency-weighted counts, or counts of sessions.
    """

    adjacency: DataFrame
    patterns: DataFrame
    weight: npt.NDArray[np.float64]
    first_item: npt.NDArray[np.int32]
    second_item: npt.NDArray[np.int32]
    unit: int
    evidence: npt.NDArray[np.int64]
    n_sessions: int
    n_edges: int
    mass: int
    demand: Demand

    @property
    def n_patterns(self) -> int:
        """Number of patterns, V."""
        return int(self.weight.size)

    @property
    def is_transition(self) -> npt.NDArray[np.bool_]:
        """By pattern, shape (V,)."""
        return self.second_item >= 0

    @property
    def item(self) -> npt.NDArray[np.int32]:
        """By pattern, the item that it teaches to predict, shape (V,): the last of its items."""
        return np.where(self.is_transition, self.second_item, self.first_item)


def _counts(sessions: DataFrame, shape: Shape, *, ahead: bool) -> DataFrame:
    """Patterns: code, sessions that hold them, the sums of their recency and messages; all BIGINT.

    Args:
        sessions: items ARRAY<INT>, recency BIGINT, age DOUBLE.
        shape: what patterns are.
        ahead: also all else of `demand.KNOWN`, which a forecast goes by.

    Cost: a pass over the edges, a shuffle of a row a pattern and block of sessions.
    """
    own = ["sessions", "recency", "evidence"]
    # What a forecast knows beside the sessions, with its place among what is known.
    more = {name: place for place, name in enumerate(KNOWN) if name not in own} if ahead else {}

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in in_pieces(batches):
            code, message, lengths = shape.edges(batch)
            recency = np.repeat(batch.column("recency").to_numpy(), lengths)
            order = np.argsort(code, kind="stable")
            code = code[order]
            first = np.flatnonzero(np.r_[True, code[1:] != code[:-1]][: code.size])
            count = np.diff(np.r_[first, code.size])
            sums = [
                np.add.reduceat(values[order], first) if first.size else values
                for values in (recency, message.astype(np.int64))
            ]
            if more:
                age = np.repeat(batch.column("age").to_numpy(), lengths)[order]
                known = known_of(np.repeat(np.arange(first.size), count), age, first.size, 0.0)
                sums += [known[:, place] for place in more.values()]
            yield pa.RecordBatch.from_arrays(
                [pa.array(values) for values in (code[first], count, *sums)], names=["code", *own, *more]
            )

    schema = ", ".join(f"{name} bigint" for name in ("code", *own, *more))
    # Of the ages the newest, of all else the sum.
    summed = (F.min(name) if name == "age" else F.sum(name) for name in (*own, *more))
    return (
        sessions.select("items", "recency", *(["age"] if more else []))
        .mapInArrow(run, schema)
        .groupBy("code")
        .agg(*(found.alias(name) for found, name in zip(summed, (*own, *more), strict=True)))
    )


def _adjacency(sessions: DataFrame, shape: Shape, codes: Ints) -> DataFrame:
    """Every session with its patterns, in the numbers of an ascending array of codes; others are dropped.

    Cost: a pass over the edges, no shuffle; the codes are broadcast.
    """
    shared = sessions.sparkSession.sparkContext.broadcast(codes)

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        known: Ints = shared.value
        for batch in in_pieces(batches):
            code, message, lengths = shape.edges(batch)
            pattern = np.searchsorted(known, code)
            found = known[np.minimum(pattern, known.size - 1)] == code if known.size else code < 0
            row = np.repeat(np.arange(lengths.size), lengths)[found]
            ends = np.cumsum(np.bincount(row, minlength=lengths.size))
            offsets = pa.array(np.r_[0, ends].astype(np.int32))
            lists = [
                pa.ListArray.from_arrays(offsets, pa.array(values[found].astype(np.int32)))
                for values in (pattern, message)
            ]
            yield pa.RecordBatch.from_arrays(
                [batch.column(c) for c in ("sid", "n", "tie")] + lists,
                names=["sid", "n", "tie", "patterns", "messages"],
            )

    adjacency = settle(
        sessions.select("sid", "n", "tie", "items").mapInArrow(
            run, "sid bigint, n int, tie bigint, patterns array<int>, messages array<int>"
        )
    )
    shared.destroy()
    return adjacency


def build_graph(encoded: Encoded, settings: SamplingSettings, *, last_only: bool = False) -> SessionGraph:
    """Build the session-pattern graph of an encoded input.

    The weight of a target item is r^item_exponent, of a transition
    (r (count - 1) / count)^transition_exponent (leave-one-out: what a single session has is worth nothing),
    where count is the number of sessions that hold the pattern and r = sum over them of
    exp(-age / half_life); r = count where the input has no order. With `demand` forecast the weight of an
    item is its expected sessions^forecast_exponent, that of a transition the geometric mean of the weight
    above and of its expected sessions.
    Each family's weights are scaled to sum to 1 (target items: lambda_items).

    Cost: linear in interactions; two passes over the edges, a third where demand is foreseen; they are never
    shuffled; a shuffle of the patterns' counts; pattern-sized arrays on the driver, which sorts them; one of
    them is broadcast.

    Args:
        encoded: the input.
        settings: exponents, half-life, largest distance.
        last_only: the rows are samples of one target, their last item: only patterns that end there.

    Raises:
        SettingsError: more patterns than `max_patterns`, whose state could not be broadcast, or more than
            Spark lets the driver collect.
    """
    n_items = encoded.n_items
    shape = Shape(n_items, settings.max_distance, last_only)
    recency = (
        F.rint(F.exp(-F.col("age") / F.lit(settings.half_life)) * F.lit(_RECENCY_UNIT))
        if encoded.has_order
        else F.lit(_RECENCY_UNIT)
    )
    sessions = encoded.sessions.withColumn("recency", recency.cast("bigint"))
    is_item = F.col("code") < n_items
    r = F.col("recency") / F.lit(_RECENCY_UNIT)
    leave_one_out = (F.col("sessions") - 1) / F.col("sessions")
    raw_weight = F.when(is_item, F.pow(r, F.lit(settings.item_exponent))).otherwise(
        F.pow(r * leave_one_out, F.lit(settings.transition_exponent))
    )
    ahead = settings.demand == "forecast" and encoded.has_order
    counted = settle(
        _counts(sessions, shape, ahead=ahead)
        .filter(is_item | (F.col("sessions") >= settings.min_support))
        .select("code", "evidence", raw_weight.alias("raw"), *(KNOWN if ahead else ["sessions"]))
    )
    n_patterns = counted.count()
    if n_patterns > settings.max_patterns:
        raise SettingsError(_too_many(counted, n_items, n_patterns, settings.max_patterns))
    _check_results(counted.sparkSession, n_patterns)
    table = counted.select("code", "sessions", "evidence", "raw").toPandas().sort_values("code")
    code, raw = table["code"].to_numpy(np.int64), table["raw"].to_numpy(np.float64)
    of_item = code < n_items
    demand: Demand = "recency" if encoded.has_order else "count"
    expected = demand_of(sessions, counted, code, shape, settings.min_support) if ahead else None
    if expected is None and settings.demand == "forecast":
        why = "there are too few of them" if ahead else "the input has no order"
        _LOG.info("patterns weigh by their counts, as their demand cannot be foreseen: %s", why)
    if expected is not None:
        raw, demand = weights_by(expected, raw, of_item, settings.forecast_exponent), "forecast"
    scaled = np.rint(raw * _WEIGHT_UNIT).astype(np.int64)
    # A family that weighs nothing (no transition occurs twice) must not divide by zero.
    share = {
        family: lam * _WEIGHT_UNIT / max(int(scaled[of_item == family].sum()), 1)
        for family, lam in ((True, settings.lambda_items), (False, 1.0))
    }
    edges = table["sessions"].to_numpy(np.int64)
    evidence = table["evidence"].to_numpy(np.int64)
    weight = raw * np.where(of_item, share[True], share[False])
    return SessionGraph(
        _adjacency(sessions, shape, code),
        _patterns(counted, n_items, code, weight),
        weight,
        np.where(of_item, code, (code - n_items) // n_items).astype(np.int32),
        np.where(of_item, -1, (code - n_items) % n_items).astype(np.int32),
        message_unit(settings.max_distance),
        evidence,
        encoded.n_sessions,
        # A session has an edge to every pattern that it holds.
        int(edges.sum()),
        int(evidence.sum()),
        demand,
    )


def _too_many(counted: DataFrame, n_items: int, n_patterns: int, most: int) -> str:
    """That an input has too many patterns, and what would leave fewer."""
    held = counted.filter(F.col("code") >= n_items).groupBy("sessions").count().toPandas()
    # Transitions by the sessions that hold them, from the most down; target items stay in any case.
    held = held.sort_values("sessions", ascending=False)
    held["left"] = n_patterns - held["count"].sum() + held["count"].cumsum()
    fit = held[held["left"] <= most]
    instead = ""
    if not fit.empty:
        support, left = fit["sessions"].iloc[-1], fit["left"].iloc[-1]
        instead = (
            f", or set sampling.min_support = {support}, which leaves the {left:,} that most sessions hold"
        )
    return (
        f"the graph has {n_patterns:,} patterns, more than sampling.max_patterns = {most:,}, the largest "
        "number whose state is sent to every executor. Raise that setting if driver and executors have the "
        f"memory (about {_DRIVER_BYTES} bytes a pattern on the driver, {_WORKER_BYTES} in every Python "
        f"worker){instead}."
    )


def _check_results(spark: SparkSession, n_patterns: int) -> None:
    """That the patterns' rows are no more than Spark lets its driver collect.

    Raises:
        SettingsError: they are; Spark itself would say so in a stack trace.
    """
    beyond = beyond_results(spark, n_patterns * _ROW_BYTES)
    if beyond is not None:
        raise SettingsError(
            f"the graph has {n_patterns:,} patterns, whose {beyond} (about {_DRIVER_BYTES} bytes a "
            "pattern), or raise sampling.min_support."
        )


def _patterns(counted: DataFrame, n_items: int, codes: Ints, weights: npt.NDArray[np.float64]) -> DataFrame:
    """The patterns' rows, each with its place in an ascending array of their codes; no shuffle."""
    shared = counted.sparkSession.sparkContext.broadcast((codes, weights))

    def run(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        known, weight = shared.value
        for batch in batches:
            place = np.searchsorted(known, batch.column("code").to_numpy())
            yield pa.RecordBatch.from_arrays(
                [*batch.columns, pa.array(weight[place]), pa.array(place.astype(np.int32))],
                names=[*batch.schema.names, "weight", "pattern"],
            )

    numbered = counted.select("code", "sessions", "evidence").mapInArrow(
        run, "code bigint, sessions bigint, evidence bigint, weight double, pattern int"
    )
    code = F.col("code")
    is_item, pair = code < n_items, code - n_items
    rows = settle(
        numbered.select(
            code,
            "pattern",
            F.when(is_item, code)
            .otherwise(F.expr(f"(code - {n_items}) div {n_items}"))
            .cast("int")
            .alias("item"),
            F.when(is_item, F.lit(-1)).otherwise(pair % n_items).cast("int").alias("next_item"),
            "sessions",
            "evidence",
            "weight",
        )
    )
    shared.destroy()
    return rows
