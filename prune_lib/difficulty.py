"""Difficulty of every session under the mixture of experts, in pandas UDFs. Higher = harder.

With l_t = -log p_mix(item t+1 | items 0..t), a session's difficulty is the mean over its positions of

    nll            l_t - E[l | popularity band of item t+1], so that a cold target is not hard for being cold
    nll-raw        l_t
    el2n, margin, entropy    of the mixture's prediction, see experts/spread.py
    forgetting, variability  over the epochs of the experts' training, see experts/dynamics.py
    disagreement   the standard deviation of the experts' losses

A session of fold K is scored by the experts and the gate of the other fold.

Decisions downstream hang on these numbers, so they are the same bit for bit whatever the
partitions: a loss does not depend on what it is computed beside (experts/scoring.py), so that which
sessions share a batch says nothing (it goes by hash, and by which of them were scored before), sums
over the input are integers (losses in millionths), and what is returned is rounded to 1e-4.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prune_lib.experts.bundle import Bundle, check_vocabulary
from prune_lib.experts.feed import with_bucket
from prune_lib.experts.scoring import (
    BLOCK_POSITIONS,
    BLOCK_SCHEMA,
    MEANS,
    MICRO,
    SAMPLE_SCHEMA,
    cached_mixture,
    score_block,
    task_device,
    with_windows,
)
from prune_lib.experts.settings import DYNAMICS, EXACT_LIMIT, EXPERTS, NEGATIVES, SPREADS, Score
from prune_lib.popularity import popularity_band
from prune_lib.score_store import KEYS, ScoreStore

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import Column, DataFrame, SparkSession

    from prune_lib.sessions.encoding import Encoded

__all__ = [
    "Scored",
    "ScoringInfo",
    "percentile_rank",
    "score_digits",
    "score_sessions",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoringInfo:
    """How a scoring was done, for the run's record."""

    experts: str
    score: str
    normaliser: str
    negatives: int
    scored_sessions: int
    reused_sessions: int
    scored_positions: int
    mean_loss: float

    def as_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True)
class Scored:
    """Scores of all sessions, or of all samples.

    Attributes:
        scores: the `scores` frame: `sid` BIGINT, `difficulty` (the score that was asked for),
            `raw_difficulty` (nll-raw), `difficulty_{expert}`, `gate_{expert}`, `disagreement` DOUBLE,
            rounded to 1e-4, `difficulty` to 1e-6 where it is el2n; NULL where no position can be scored.
            Of samples: `sid` of the session, `length` INT (place of the target, from 1), and a row for
            each that can be scored.
        info: how they were made.
        persisted: what `scores` is read from; `unpersist` it when the scores are written.
    """

    scores: DataFrame
    info: ScoringInfo
    persisted: DataFrame

    def unpersist(self) -> None:
        """Free the cached losses; `scores` would have to run the models again afterwards."""
        self.persisted.unpersist()


def score_sessions(
    encoded: Encoded,
    bundle: Bundle,
    *,
    batch_size: int = 2048,
    device: str = "auto",
    threads: int = 1,
    exact_limit: float = EXACT_LIMIT,
    negatives: int = NEGATIVES,
    max_unknown: float = 0.05,
    by_sample: bool = False,
    score: Score = "nll",
    workspace: str | None = None,
) -> Scored:
    """Score every session of an input by the experts of the fold that did not see it.

    Cost: a count by length, one shuffle of the sessions, the models' pass (persisted), one
    aggregate over its losses. Weights travel as broadcast bytes: executors need no access to the
    bundle's folder.

    Args:
        encoded: the encoded input.
        bundle: trained experts; items that it does not know are left out as targets.
        batch_size: padded positions that go through the models at a time.
        device: auto (the GPU of the task's resources where it has one), cpu or cuda.
        threads: torch's threads in a task on the CPU; Spark runs a task per core already.
        exact_limit: the normaliser is exact up to so many positions x items x experts, estimated
            beyond.
        negatives: items of the estimated normaliser (see `mixture.SharedNegatives`).
        max_unknown: share of interactions, at most, whose item the bundle may lack.
        by_sample: score every click after the first by itself, not their mean by session.
        score: what difficulty is; el2n, margin and entropy ask for a second pass over the items, forgetting
            and variability for one for each epoch of the training.
        workspace: where scores are kept (`score_store`): sessions that were scored before by the same
            experts are not scored again, the others are added. Samples are scored every time. None:
            nothing is kept.

    Returns:
        Scores and how they were made.

    Raises:
        BundleError: the bundle was made for another vocabulary, or does not hold what the score needs.
    """
    from pyspark import StorageLevel
    from pyspark.sql import functions as F

    positions = max(0, encoded.n_interactions - encoded.n_sessions)
    exact = float(positions) * bundle.n_items * len(EXPERTS) <= exact_limit or negatives >= bundle.n_items
    negatives = 0 if exact else negatives
    how = _How(
        batch_size, device, threads, negatives, by_sample, score if score in (*SPREADS, *DYNAMICS) else None
    )
    sessions = encoded.sessions.withColumn("session_id", F.col("session_id").cast("string"))
    store, known = None, None
    if workspace is not None and not by_sample:
        spark = encoded.sessions.sparkSession
        store = ScoreStore.of(
            spark,
            workspace,
            experts=bundle.version,
            bundle_hash=bundle.hash,
            normaliser=negatives,
            kind=f"{how.extra}/{_device_kind(spark, device)}/{how.threads}/{how.batch_size}",
        )
        known = store.known(sessions)
        if known is None:
            log.info("no scores by experts %s are kept yet: every session is scored", bundle.version)
        else:
            sessions = sessions.join(known.select("sid"), "sid", "left_anti")
    index = _bundle_index(encoded, bundle, max_unknown)
    computed = _computed_losses(sessions, bundle, index, how).persist(StorageLevel.MEMORY_AND_DISK)
    losses = computed if known is None else computed.drop(*KEYS).unionByName(known)
    by_position = (
        losses.select("loss", "band")
        if by_sample
        else losses.select(F.explode(F.arrays_zip("losses", "bands")).alias("p")).select(
            F.col("p.losses").alias("loss"), F.col("p.bands").alias("band")
        )
    )
    sums = (
        by_position.groupBy("band").agg(F.sum("loss").alias("total"), F.count(F.lit(1)).alias("n")).collect()
    )
    scored = losses.select("sid").distinct() if by_sample else losses.where(F.size("losses") > 0)
    expected = {row["band"]: round(row["total"] / row["n"]) for row in sums}
    info = ScoringInfo(
        experts=bundle.version,
        score=score,
        reused_sessions=0 if known is None else known.count(),
        normaliser="exact" if exact else "estimated",
        negatives=negatives,
        scored_sessions=scored.count(),
        scored_positions=sum(row["n"] for row in sums),
        mean_loss=round(sum(row["total"] for row in sums) / MICRO / max(1, sum(row["n"] for row in sums)), 4),
    )
    log.info(
        "scored %s positions of %s sessions%s: mean loss %.3f nats, %s normaliser%s",
        f"{info.scored_positions:,}",
        f"{info.scored_sessions:,}",
        f" ({info.reused_sessions:,} of them in earlier runs)" if info.reused_sessions else "",
        info.mean_loss,
        info.normaliser,
        "" if exact else f" ({negatives:,} shared items)",
    )
    if by_sample:
        return Scored(_sample_scores(losses, expected, score), info, computed)
    if store is not None and not computed.isEmpty():
        store.add(computed)
    short = encoded.sessions.where(F.size("items") < 2).select("sid")
    scores = _scores(losses, expected, score).unionByName(short, allowMissingColumns=True)
    return Scored(scores, info, computed)


def percentile_rank(scores: DataFrame, column: str, *, output: str = "q", digits: int = 4) -> DataFrame:
    """Add the percentile rank of a score, in (0, 1), higher = harder.

    q = (rows below + half of the rows equal) / rows, over the rows where the score is not NULL; NULL
    where it is: whoever needs a number there says which. Values are compared after rounding to
    `digits`, so that the one window this needs runs over the distinct values (bounded by their range),
    not over the sessions.

    Args:
        scores: frame with a DOUBLE `column`.
        column: the score.
        output: name of the added DOUBLE column.
        digits: digits after the point that count.

    Returns:
        `scores` with `output`; row order is not kept.
    """
    from pyspark.sql import Window
    from pyspark.sql import functions as F

    key = F.round(F.col(column) * 10**digits).cast("bigint")
    keyed = scores.withColumn("_key", key)
    counted = keyed.where(F.col("_key").isNotNull()).groupBy("_key").agg(F.count(F.lit(1)).alias("_equal"))
    up_to = F.sum("_equal").over(Window.orderBy("_key").rowsBetween(Window.unboundedPreceding, 0))
    everything = F.sum("_equal").over(Window.partitionBy())
    rank = (2 * up_to - F.col("_equal")) / (2 * everything)
    ranked = counted.select("_key", rank.alias(output))
    return keyed.join(ranked, "_key", "left").drop("_key")


def _device_kind(spark: SparkSession, device: str) -> str:
    """What auto, cpu or cuda stands for in the tasks: auto is cuda where Spark gives each of them a GPU."""
    if device != "auto":
        return device
    return "cuda" if float(spark.conf.get("spark.task.resource.gpu.amount", "0") or 0) > 0 else "cpu"


def _bundle_index(encoded: Encoded, bundle: Bundle, max_unknown: float) -> npt.NDArray[np.int32]:
    """Return the bundle's index by the input's item index; unknown items get `n_items`."""
    table = encoded.items.selectExpr("cast(item AS STRING) AS item", "idx", "interactions").toPandas()
    table = table.sort_values("idx")
    index = check_vocabulary(
        bundle,
        table["item"].to_numpy(dtype=object),
        table["interactions"].to_numpy(dtype=np.int64),
        max_unknown=max_unknown,
    )
    return np.where(index < 0, bundle.n_items, index).astype(np.int32)


def _n_blocks(rows: DataFrame) -> dict[str, int]:
    counts = rows.groupBy("fold", "bucket").count().collect()
    return {
        f"{row['fold']}/{row['bucket']}": -(-row["count"] * row["bucket"] // BLOCK_POSITIONS)
        for row in counts
    }


def _block_column(blocks: dict[str, int]) -> Column:
    from pyspark.sql import functions as F

    group = F.concat_ws("/", "fold", "bucket")
    number = F.create_map(*[F.lit(x) for pair in sorted(blocks.items()) for x in pair])[group]
    return F.concat_ws("/", group, F.pmod("tie", number))


def _scores(losses: DataFrame, expected: dict[int, int], score: Score) -> DataFrame:
    """Return the `scores` frame from the blocks' losses and the expected loss (1e-6) by band."""
    from pyspark.sql import functions as F

    n = F.when(F.size("losses") > 0, F.size("losses"))
    total = F.aggregate("losses", F.lit(0).cast("bigint"), lambda a, x: a + x)
    by_band = [F.lit(x).cast("bigint") for pair in sorted(expected.items()) for x in pair]
    if by_band:
        table = F.create_map(*by_band)
        base = F.aggregate("bands", F.lit(0).cast("bigint"), lambda a, b: a + table[b.cast("bigint")])
    else:
        base = F.lit(0).cast("bigint")
    return losses.select(
        "sid",
        _chosen(score, (total - base) / n / MICRO, total / n / MICRO).alias("difficulty"),
        F.round(total / n / MICRO, 4).alias("raw_difficulty"),
        *[F.round(name, 4).alias(name) for name in MEANS],
    )


def _chosen(score: Score, adjusted: Column, raw: Column) -> Column:
    """Return the column of a score."""
    from pyspark.sql import functions as F

    columns = {"nll": adjusted, "nll-raw": raw, "disagreement": F.col("disagreement")}
    return F.round(columns.get(score, F.col("extra")), score_digits(score))


def score_digits(score: Score) -> int:
    """Return the digits after the point that count: of many items most error vectors are near 1."""
    return 6 if score == "el2n" else 4


def _sample_scores(losses: DataFrame, expected: dict[int, int], score: Score) -> DataFrame:
    """Return the `scores` frame of samples; see `_scores`."""
    from pyspark.sql import functions as F

    by_band = [F.lit(x).cast("bigint") for pair in sorted(expected.items()) for x in pair]
    base = F.create_map(*by_band)[F.col("band").cast("bigint")] if by_band else F.lit(0)
    scores: DataFrame = losses.select(
        "sid",
        "length",
        _chosen(score, (F.col("loss") - base) / MICRO, F.col("loss") / MICRO).alias("difficulty"),
        F.round(F.col("loss") / MICRO, 4).alias("raw_difficulty"),
        *[F.round(name, 4).alias(name) for name in MEANS],
    )
    return scores


@dataclass(frozen=True)
class _How:
    """How losses are computed: see `score_sessions`; negatives are 0 for the exact normaliser."""

    batch_size: int
    device: str
    threads: int
    negatives: int
    by_sample: bool
    extra: str | None


def _computed_losses(
    sessions: DataFrame, bundle: Bundle, index: npt.NDArray[np.int32], how: _How
) -> DataFrame:
    """Return the losses of sessions in blocks: SAMPLE_SCHEMA, or BLOCK_SCHEMA and KEYS; lazily."""
    columns = (
        ["sid", "items", "n", "fold", "tie"] if how.by_sample else ["sid", "items", "n", "fold", "tie", *KEYS]
    )
    rows = with_bucket(with_windows(sessions.select(*columns), bundle.max_length), bundle.max_length)
    schema = SAMPLE_SCHEMA if how.by_sample else f"{BLOCK_SCHEMA}, session_id STRING, content BIGINT"
    blocks = _n_blocks(rows)
    if not blocks:
        return sessions.sparkSession.createDataFrame([], schema)
    return (
        rows.withColumn("block", _block_column(blocks))
        # By number: adaptive execution would merge these small rows into too few tasks for
        # their work.
        .repartition(min(sum(blocks.values()), 2000), "block")
        .groupBy("block")
        .applyInPandas(_block_scorer(sessions.sparkSession, bundle, index, how), schema)
    )


def _block_scorer(
    spark: SparkSession, bundle: Bundle, index: npt.NDArray[np.int32], how: _How
) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """Return the grouped-map function over blocks; what it closes over is small or broadcast."""
    context = spark.sparkContext
    over_epochs = how.extra in DYNAMICS
    weights = [
        context.broadcast((*bundle.weights(fold), bundle.snapshots(fold) if over_epochs else None))
        for fold in (0, 1)
    ]
    popularity = bundle.vocabulary.sort_values("idx")["sessions"].to_numpy(np.int64)
    # What a loss owes to popularity, it owes to that in the data of the experts.
    bands = popularity_band(np.append(popularity, 0))
    tables = context.broadcast((index, bands))
    version = bundle.hash
    carried = () if how.by_sample else KEYS

    def score(block: pd.DataFrame) -> pd.DataFrame:
        import torch

        fold = 1 - int(block["fold"].iloc[0])  # the fold that did not see these sessions
        where = task_device(how.device)
        if where == "cpu" and torch.get_num_threads() != how.threads:
            torch.set_num_threads(how.threads)
        key = (version, fold, where, how.negatives, over_epochs)
        mixture = cached_mixture(key, lambda: weights[fold].value)
        return score_block(block, mixture, *tables.value, how.batch_size, how.by_sample, how.extra, carried)

    return score
