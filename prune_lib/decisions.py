"""The companion tables of a run: a row a session (decisions) and a row an item (items)."""

from __future__ import annotations

from dataclasses import dataclass

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.explanation import closest_kept, kept_reason, offers, pruned_reason
from prune_lib.gain_parts import PatternNames, kept_parts, parts_type
from prune_lib.graph import SessionGraph
from prune_lib.popularity import Bands
from prune_lib.sampling.gains import GAIN_UNIT
from prune_lib.sampling.select import Selection
from prune_lib.sessions.encoding import Encoded
from prune_lib.settle import settle
from prune_lib.weights import Weights, session_weights

__all__ = ["Decided", "decide", "decision_rows", "item_rows"]


@dataclass
class Decided:
    """Every session with its verdict, in integers.

    Attributes:
        sessions: sid, session_id, n, items ARRAY<INT>, kept, rank, reason, gain DOUBLE, gain_parts,
            propagated, q and the columns of the scores, cover_rank BIGINT, group (sid of the newest session
            with the same sequence); of samples also length, distinct. Settled.
        weights: of the kept sessions.
    """

    sessions: DataFrame
    weights: Weights


def decide(
    encoded: Encoded,
    graph: SessionGraph,
    selection: Selection,
    twins: DataFrame,
    scores: DataFrame,
    propagated: DataFrame,
    suspects: DataFrame,
    *,
    method: bool,
) -> Decided:
    """Give every session its verdict and its reason.

    Args:
        encoded: the encoded input.
        graph: its graph.
        selection: what was picked.
        twins: sid, twin.
        scores: the scores with q, a row a session or fewer.
        propagated: sid, x.
        suspects: sid, suspect, last BOOLEAN (whether it was set aside), of what looks like bots or noise.
        method: whether a baseline's rule, not the graph, chose the sessions.

    Cost: joins by sid, and two passes over the edges.
    """
    ranked = selection.ranked
    kept_of_group = (
        twins.join(ranked.select("sid", "rank"), "sid").groupBy("twin").agg(F.min("rank").alias("group_rank"))
    )
    names = graph.adjacency.sparkSession.sparkContext.broadcast(PatternNames.of(graph, encoded.items))
    parts = parts_type(names.value.kind)
    still = offers(graph, selection.objective, names)
    # A baseline's sessions were not chosen for a gain.
    at_choice = (
        ranked.select("sid", F.lit(None).cast(parts).alias("gain_parts"))
        if method
        else kept_parts(graph, ranked, selection.objective, names)
    )
    # Who was chosen as any other was not pruned for what it looks like; a baseline sets nobody aside.
    aside = suspects.filter(F.col("last") & F.lit(not method)).select("sid", "suspect")
    closest = closest_kept(graph, ranked)
    kept = F.col("rank").isNotNull()
    base = (
        encoded.sessions.select("sid", "session_id", "items", "n", *_of_samples(encoded.sessions))
        .join(scores, "sid", "left")
        .join(propagated.select("sid", F.col("x").alias("propagated")), "sid", "left")
        .join(twins, "sid")
        .join(ranked, "sid", "left")
        .join(still, "sid")
        .join(closest, "sid")
        .join(kept_of_group, "twin", "left")
        .join(aside, "sid", "left")
        .join(at_choice, "sid", "left")
        .withColumn("twin_kept", F.col("group_rank").isNotNull())
    )
    # A floor's picks add to coverage, too; what a baseline's do, nobody asked.
    at_decision = F.lit(None) if method else F.coalesce("added", F.lit(0)) / GAIN_UNIT
    kept_as = F.lit("METHOD") if method else kept_reason()
    pruned_as = pruned_reason()
    sessions = settle(
        base.select(
            *["sid", "session_id", "items", "n", "q", "propagated", *_of_samples(encoded.sessions)],
            *[c for c in scores.columns if c not in ("sid", "q")],
            kept.alias("kept"),
            "rank",
            F.when(kept, kept_as).otherwise(pruned_as).alias("reason"),
            # Exact, as its parts are: a BIGINT over a power of two.
            F.when(kept, at_decision).otherwise(F.col("gain_left") / GAIN_UNIT).alias("gain"),
            F.when(~kept, F.col("parts_left"))
            .when(F.lit(not method), F.coalesce("gain_parts", F.array().cast(parts)))
            .alias("gain_parts"),
            F.when(~kept, F.coalesce("group_rank", "cover_rank")).alias("cover_rank"),
            F.col("twin").alias("group"),
        )
    )
    weights = session_weights(sessions.filter("kept"), encoded.item_sessions, encoded.n_sessions)
    return Decided(sessions, weights)


def _of_samples(sessions: DataFrame) -> list[str]:
    """What samples have beside the columns of sessions."""
    return [name for name in ("length", "distinct") if name in sessions.columns]


def decision_rows(decided: Decided, raw: DataFrame, run_id: str) -> DataFrame:
    """Rows of the decisions table.

    Args:
        decided: the verdicts.
        raw: session_id and items ARRAY of the input's own item ids; of samples session_id, length and their
            last clicks.
        run_id: the run.
    """
    sessions = decided.sessions
    samples = bool(_of_samples(sessions))
    key = ["session_id", "length"] if samples else ["session_id"]
    own = raw.select(
        *key,
        F.array_distinct("items").alias("own_items"),
        *([F.element_at("items", -1).alias("target")] if samples else []),
    )
    names = {"session_id": "covered_by", "length": "covered_by_length"}
    kept = (
        sessions.filter("kept")
        .select(F.col("rank").alias("cover_rank"), *key)
        .join(own.select(*key, F.col("own_items").alias("theirs")), key)
        .withColumnsRenamed({name: names[name] for name in key})
    )
    return (
        sessions.join(own, key)
        .join(kept, "cover_rank", "left")
        .drop("items")
        .withColumn("shared_items", F.array_intersect("own_items", "theirs"))
        .withColumn("items", F.col("distinct") if samples else F.size("own_items"))
        .withColumn("interactions", F.col("length") if samples else F.col("n"))
        .withColumn("difficulty", F.col("q"))
        .withColumn("run_id", F.lit(run_id))
    )


def item_rows(encoded: Encoded, decided: Decided, bands: Bands, run_id: str) -> DataFrame:
    """Rows of the items table: popularity before and after, and what became of each item.

    Cost: one shuffle of the clicks by item.
    """
    band = (
        F.when(F.col("sessions") <= bands.cold_max, F.lit("cold"))
        .when(F.col("sessions") >= bands.popular_min, F.lit("popular"))
        .otherwise(F.lit("mid"))
    )
    clicks = decided.sessions.select(
        "kept",
        "session_id",
        "rank",
        # Millionths, so that the mean does not depend on the order of addition.
        F.rint(F.col("q") * 10**6).cast("bigint").alias("q"),
        "sid",
        F.explode("items").alias("idx"),
    )
    per_session = clicks.groupBy("idx", "sid", "kept", "session_id", "rank", "q").agg(
        F.count(F.lit(1)).alias("clicks")
    )
    counted = per_session.groupBy("idx").agg(
        F.count(F.lit(1)).alias("sessions_before"),
        F.sum("clicks").alias("interactions_before"),
        F.count_if("kept").alias("sessions_after"),
        F.sum(F.when(F.col("kept"), F.col("clicks")).otherwise(0)).alias("interactions_after"),
        (F.sum("q") / F.count("q") / 10**6).alias("mean_difficulty"),
        F.min_by("session_id", "rank").alias("first_kept_session"),
    )
    return (
        encoded.items.select("item", "idx", "sessions")
        # No sample predicts an item that only begins sessions.
        .join(counted, "idx", "left")
        .fillna(0, [name for name in counted.columns if name.endswith(("_before", "_after"))])
        .withColumn(
            "share_kept",
            F.when(F.col("sessions_before") > 0, F.col("sessions_after") / F.col("sessions_before")),
        )
        .withColumn("band", band)
        .withColumn("run_id", F.lit(run_id))
    )
