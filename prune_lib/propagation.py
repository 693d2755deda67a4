"""Difficulty spread over the graph: aggregation to patterns, propagation back to sessions.

One round (GraphFrames `aggregateMessages`, two hops):

    h_v  = sum_{s in v} a_sv x_s / sum_{s in v} a_sv
    x'_s = (1 - alpha) x_s + alpha sum_{v in s} phi_v h_v / sum_{v in s} phi_v,   phi_v = 1 / degree(v)

so that a session that looks hard among easy neighbours is trusted less, and hubs do not dominate. Sums are
BIGINT in units of 2^-30 (coarser where the data are so large that they would not fit) and every round's
result is rounded to `DECIMALS`, so that partitions do not matter.
"""

from __future__ import annotations

import logging

from graphframes import GraphFrame
from graphframes.lib import AggregateMessages as AM
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.graph import SessionGraph
from prune_lib.settle import settle

__all__ = ["DECIMALS", "propagate"]

DECIMALS = 6
# Scores enter sums in units of 2^-30, or as many bits as keep the sum over all messages within a BIGINT.
_BITS = 30
# phi = 1/degree is carried in units of 2^-40, so that a hub of a million sessions keeps six digits.
_PHI_UNIT = float(2**40)
_LOG = logging.getLogger(__name__)


def propagate(graph: SessionGraph, x: DataFrame, alpha: float, rounds: int) -> DataFrame:
    """Spread a score over the session-pattern graph.

    Args:
        graph: the graph.
        x: a row a session: sid BIGINT, x DOUBLE in [0, 1].
        alpha: share of the neighbourhood in the new score, in [0, 1].
        rounds: number of rounds; 0 leaves the score as it is.

    Returns:
        sid BIGINT, x DOUBLE in [0, 1]; a session without patterns keeps its score. The frame is cached
        by GraphFrames' own storage.

    Cost: per round two `aggregateMessages`, each a join of the edges with the vertices and a shuffle of
    the messages: linear in edges.
    """
    x = x.select("sid", F.round("x", DECIMALS).alias("x"))
    if rounds == 0 or alpha == 0.0 or graph.n_edges == 0:
        return x
    # Pattern ids are mapped below zero: GraphFrames wants one id column for all vertices.
    edges = graph.adjacency.select(
        F.col("sid").alias("src"), F.explode(F.arrays_zip("patterns", "messages")).alias("e")
    ).select("src", (-F.col("e.patterns").cast("bigint") - 1).alias("dst"), F.col("e.messages").alias("a"))
    degree = graph.patterns.select((-F.col("pattern").cast("bigint") - 1).alias("id"), "sessions")
    unit = float(2 ** max(1, min(_BITS, 62 - graph.mass.bit_length())))
    for _ in range(rounds):
        x = _one_round(x, edges, degree, alpha, unit)
    return x


def _one_round(x: DataFrame, edges: DataFrame, degree: DataFrame, alpha: float, unit: float) -> DataFrame:
    """One aggregation to the patterns and one propagation back."""
    # aggregateMessages carries every vertex column in its triplets: id and the one value, no more.
    sessions = x.select(F.col("sid").alias("id"), F.rint(F.col("x") * unit).cast("bigint").alias("value"))
    patterns = degree.select("id", F.lit(0).cast("bigint").alias("value"))
    up = GraphFrame(sessions.unionByName(patterns), edges).aggregateMessages(
        [
            F.sum(AM.msg["weighted"]).alias("weighted"),
            F.sum(AM.msg["mass"]).alias("mass"),
        ],
        sendToDst=[F.struct((AM.src["value"] * AM.edge["a"]).alias("weighted"), AM.edge["a"].alias("mass"))],
    )
    h = up.join(degree, "id").select(
        "id",
        F.rint(F.col("weighted") / F.col("mass") / unit * _PHI_UNIT / F.col("sessions"))
        .cast("bigint")
        .alias("value"),
        F.rint(_PHI_UNIT / F.col("sessions")).cast("bigint").alias("phi"),
    )
    vertices = h.unionByName(
        sessions.select("id", F.lit(0).cast("bigint").alias("value"), F.lit(0).cast("bigint").alias("phi"))
    )
    down = GraphFrame(vertices, edges).aggregateMessages(
        [F.sum(AM.msg["value"]).alias("value"), F.sum(AM.msg["phi"]).alias("phi")],
        sendToSrc=[F.struct(AM.dst["value"].alias("value"), AM.dst["phi"].alias("phi"))],
    )
    # Only vertices that received a message come back: the others keep their score.
    neighbourhood = F.col("value") / F.col("phi")
    out = x.join(down.select(F.col("id").alias("sid"), "value", "phi"), "sid", "left").select(
        "sid",
        F.round(F.coalesce((1 - alpha) * F.col("x") + alpha * neighbourhood, F.col("x")), DECIMALS).alias(
            "x"
        ),
    )
    # aggregateMessages persists what it returns; the next round and the caller read a settled copy.
    settled = settle(out)
    up.unpersist()
    down.unpersist()
    return settled
