"""Prefixes as units: every prefix with its target is a session of its own, chosen or left by itself."""

from __future__ import annotations

from dataclasses import replace

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.sessions.encoding import Encoded
from prune_lib.settle import settle

__all__ = ["prefix_rows", "prefixes_of"]


def prefixes_of(encoded: Encoded) -> Encoded:
    """Every proper prefix with its target as a session of its own.

    Returns:
        An encoding over the same items: `sid` names session and length, `whole` is the session's sid,
        `session_id` STRING; n = 1, the cost of a sample.
    """
    lengths = F.sequence(F.lit(2), F.size("items"))
    rows = settle(
        encoded.sessions.filter(F.size("items") >= 2)
        .select("*", F.explode(lengths).alias("length"))
        .select(
            # No session comes near 2^20 interactions, nor their number 2^43.
            (F.col("sid") * F.lit(2**20) + F.col("length")).alias("sid"),
            F.col("sid").alias("whole"),
            F.concat_ws("#", F.col("session_id").cast("string"), "length").alias("session_id"),
            F.slice("items", F.lit(1), F.col("length")).alias("items"),
            F.lit(1).alias("n"),
            "age",
            "fold",
            "slice",
            F.xxhash64("tie", "length").alias("tie"),
        )
    )
    samples = encoded.n_interactions - encoded.n_sessions
    return replace(encoded, sessions=rows, n_sessions=samples, n_interactions=samples)


def prefix_rows(prefixes: Encoded, ranked: DataFrame) -> DataFrame:
    """Session_id, items, place, prune_rank of ranked prefixes (sid, prune_rank)."""
    return prefixes.sessions.join(ranked.select("sid", "prune_rank"), "sid").select(
        "session_id", "items", F.col("sid").alias("place"), "prune_rank"
    )
