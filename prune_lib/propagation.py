"""Difficulty spread over the graph: aggregation to patterns, propagation back to sessions.

One round, two hops:

    h_v  = sum_{s in v} a_sv x_s / sum_{s in v} a_sv
    x'_s = (1 - alpha) x_s + alpha sum_{v in s} phi_v h_v / sum_{v in s} phi_v,   phi_v = 1 / degree(v)

so that a session that looks hard among easy neighbours is trusted less, and hubs do not dominate. Sums are
BIGINT in units of 2^-30 (coarser where the data are so large that they would not fit) and every round's
result is rounded to `DECIMALS`, so that partitions do not matter.

Two engines compute the same numbers, bit for bit. `graphframes` is `aggregateMessages`, hop by hop, and
keeps everything distributed. `arrays` brings the patterns' sums to the driver and broadcasts them, as the
sampler does with its state: no join of edges with vertices, several times faster. `auto` takes the first
while the vertices are few enough to be sent to the edges, and the second beyond, where GraphFrames would
shuffle all edges four times a round.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
from graphframes import GraphFrame
from graphframes.lib import AggregateMessages as AM
from py4j.protocol import Py4JError
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.batches import in_pieces, lists_of
from prune_lib.graph import SessionGraph
from prune_lib.sampling.gains import sum_by_row
from prune_lib.session import is_local
from prune_lib.settings.groups import Engine
from prune_lib.settle import settle

__all__ = ["DECIMALS", "propagate"]

_LOG = logging.getLogger(__name__)

DECIMALS = 6
# Scores enter sums in units of 2^-30, or as many bits as keep the sum over all messages within a BIGINT.
_BITS = 30
# phi = 1/degree is carried in units of 2^-40, so that a hub of a million sessions keeps six digits.
_PHI_UNIT = float(2**40)
# Vertices are broadcast while they take no more than this share of Spark's memory, at so many bytes each: two
# or three numbers, once for each of the joins with source, target and receiver that GraphFrames makes.
_SHARE, _VERTEX_BYTES = 1 / 3, 450


def propagate(
    graph: SessionGraph,
    x: DataFrame,
    alpha: float,
    rounds: int,
    engine: Engine = "auto",
    decimals: int = DECIMALS,
) -> DataFrame:
    """Spread a score over the session-pattern graph.

    Args:
        graph: the graph.
        x: a row a session: sid BIGINT, x DOUBLE in [0, 1].
        alpha: share of the neighbourhood in the new score, in [0, 1].
        rounds: number of rounds; 0 leaves the score as it is.
        engine: how; the result is the same.
        decimals: of the scores, before, between and after the rounds.

    Returns:
        sid BIGINT, x DOUBLE in [0, 1]; a session without patterns keeps its score. Settled, unless there is
        nothing to do.

    Cost: linear in edges. A round of `graphframes` is two `aggregateMessages`, each a join of the edges with
    the vertices (which are broadcast where they are few, else both are shuffled) and a shuffle of what each
    task added up; of `arrays` a join of scores and sessions, a shuffle of one sum a pattern and task, and
    three pattern-sized arrays on the driver, two of them broadcast.
    """
    x = x.select("sid", F.round("x", decimals).alias("x"))
    if rounds == 0 or alpha == 0.0 or graph.n_edges == 0:
        return x
    unit = float(2 ** max(1, min(_BITS, 62 - graph.mass.bit_length())))
    vertices, sendable = graph.n_sessions + graph.n_patterns, _sendable(x.sparkSession)
    few = vertices <= sendable
    if not few and engine != "arrays":
        _LOG.info(
            "%d vertices are more than memory holds to send them to the edges (%d): %s",
            vertices,
            sendable,
            "the patterns' sums are sent instead, as arrays"
            if engine == "auto"
            else "both are shuffled; --propagation-engine arrays shuffles neither, for the same scores",
        )
    if engine == "arrays" or (engine == "auto" and not few):
        for _ in range(rounds):
            x = _round_of_arrays(graph, x, alpha, unit, decimals)
        return x
    # Pattern ids are mapped below zero: GraphFrames wants one id column for all vertices.
    edges = graph.adjacency.select(
        F.col("sid").alias("src"), F.explode(F.arrays_zip("patterns", "messages")).alias("e")
    ).select("src", (-F.col("e.patterns").cast("bigint") - 1).alias("dst"), F.col("e.messages").alias("a"))
    patterns = graph.patterns.select((-F.col("pattern").cast("bigint") - 1).alias("id"))
    for _ in range(rounds):
        x = _round_of_graphframes(x, edges, patterns, alpha, unit, decimals, few)
    return x


def _sendable(spark: SparkSession) -> int:
    """Vertices that driver and executors have memory for."""
    jvm: Any = spark._jvm
    context: Any = spark.sparkContext
    try:
        memory = int(jvm.java.lang.Runtime.getRuntime().maxMemory())
        if not is_local(context.master):
            memory = min(memory, int(context._jsc.sc().executorMemory()) * 2**20)
    except Py4JError as problem:  # a managed Spark may allow few calls
        _LOG.debug("the memory of driver and executors is not known: %s", problem)
        memory = 2**30  # Spark's own default
    return int(memory * _SHARE / _VERTEX_BYTES)


def _mixed(alpha: float, decimals: int) -> Column:
    """The new score from x and from the sums of the neighbourhood, null where there is none."""
    neighbourhood = F.col("value") / F.col("phi")
    new = F.coalesce((1 - alpha) * F.col("x") + alpha * neighbourhood, F.col("x"))
    return F.round(new, decimals).alias("x")


def _round_of_arrays(
    graph: SessionGraph, x: DataFrame, alpha: float, unit: float, decimals: int
) -> DataFrame:
    """One aggregation to the patterns and one propagation back, by arrays of the patterns' sums."""
    scored = settle(graph.adjacency.select("sid", "patterns", "messages").join(x, "sid"))
    value = F.rint(F.col("x") * unit).cast("bigint")
    sums = (
        scored.select(value.alias("value"), F.explode(F.arrays_zip("patterns", "messages")).alias("e"))
        .groupBy(F.col("e.patterns").alias("pattern"))
        .agg(F.sum(F.col("value") * F.col("e.messages")).alias("weighted"), F.sum("e.messages").alias("mass"))
        .join(graph.patterns.select("pattern", "sessions"), "pattern")
        .toPandas()
    )
    # Every pattern has a session, so that every place is filled.
    values, phis = (np.zeros(graph.n_patterns, dtype=np.int64) for _ in range(2))
    pattern = sums["pattern"].to_numpy(np.int64)
    sessions = sums["sessions"].to_numpy(np.float64)
    mean = sums["weighted"].to_numpy(np.float64) / sums["mass"].to_numpy(np.float64)
    values[pattern] = np.rint(mean / unit * _PHI_UNIT / sessions)
    phis[pattern] = np.rint(_PHI_UNIT / sessions)
    shared = x.sparkSession.sparkContext.broadcast((values, phis))

    def back(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        for batch in in_pieces(batches, "patterns"):
            pattern, lengths = lists_of(batch.column("patterns"))
            none = lengths == 0
            received = [pa.array(sum_by_row(a[pattern], lengths), mask=none) for a in shared.value]
            yield pa.RecordBatch.from_arrays(
                [batch.column("sid"), batch.column("x"), *received], names=["sid", "x", "value", "phi"]
            )

    down = scored.select("sid", "x", "patterns").mapInArrow(
        back, "sid bigint, x double, value bigint, phi bigint"
    )
    settled = settle(down.select("sid", _mixed(alpha, decimals)))
    shared.destroy()
    return settled


def _round_of_graphframes(
    x: DataFrame, edges: DataFrame, patterns: DataFrame, alpha: float, unit: float, decimals: int, few: bool
) -> DataFrame:
    """One aggregation to the patterns and one propagation back, by `aggregateMessages`.

    With few vertices they are sent to the edges, of which there are several times as many; else both are
    shuffled.
    """
    sent = F.broadcast if few else lambda df: df
    # aggregateMessages carries every vertex column in its triplets: id and the one value, no more.
    sessions = x.select(F.col("sid").alias("id"), F.rint(F.col("x") * unit).cast("bigint").alias("value"))
    mute = patterns.withColumn("value", F.lit(0).cast("bigint"))
    up = GraphFrame(sent(sessions.unionByName(mute)), edges).aggregateMessages(
        [
            F.sum(AM.msg["weighted"]).alias("weighted"),
            F.sum(AM.msg["mass"]).alias("mass"),
            # A message from each session that holds the pattern: its degree.
            F.count(AM.msg).alias("sessions"),
        ],
        sendToDst=[F.struct((AM.src["value"] * AM.edge["a"]).alias("weighted"), AM.edge["a"].alias("mass"))],
    )
    h = up.select(
        "id",
        F.rint(F.col("weighted") / F.col("mass") / unit * _PHI_UNIT / F.col("sessions"))
        .cast("bigint")
        .alias("value"),
        F.rint(_PHI_UNIT / F.col("sessions")).cast("bigint").alias("phi"),
    )
    vertices = h.unionByName(
        sessions.select("id", F.lit(0).cast("bigint").alias("value"), F.lit(0).cast("bigint").alias("phi"))
    )
    down = GraphFrame(sent(vertices), edges).aggregateMessages(
        [F.sum(AM.msg["value"]).alias("value"), F.sum(AM.msg["phi"]).alias("phi")],
        sendToSrc=[F.struct(AM.dst["value"].alias("value"), AM.dst["phi"].alias("phi"))],
    )
    # Only vertices that received a message come back: the others keep their score.
    joined = x.join(sent(down.select(F.col("id").alias("sid"), "value", "phi")), "sid", "left")
    out = joined.select("sid", _mixed(alpha, decimals))
    # aggregateMessages persists what it returns; the next round and the caller read a settled copy.
    settled = settle(out)
    up.unpersist()
    down.unpersist()
    return settled
