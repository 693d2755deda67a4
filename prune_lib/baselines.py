"""Baselines: simple rules of choice, through the same tables as the graph method.

Every rule is a total order of the sessions; a budget takes its longest prefix that fits, so that
the kept set of a smaller ratio is a prefix of a larger one's, but for dual, whose order depends on
the ratio. Difficulty is the percentile rank q, higher = harder.

    random      by hash
    hardest     hardest first: EL2N and its kind (Paul et al., NeurIPS 2021)
    easiest     easiest first, the better end where little is kept (Sorscher et al., NeurIPS 2022)
    moderate    closest to the median difficulty first (Moderate-DS: Xia et al., ICLR 2023)
    ccs         coverage-centric coreset selection (Zheng et al., ICLR 2023)
    d2          forward and reverse messages between neighbours (Maharana et al., ICLR 2024), see d2.py
    dual        drawn by difficulty times uncertainty, and by a preference for easy ones that grows as less is
                kept (DUAL: Cho et al., ICML 2025), with the three experts in the place of a model's epochs
    item-quota  the first session of every item, then the second of every item, and so on
    recent      newest first

Sessions without a difficulty (nothing in them to predict) come last where a rule needs one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.d2 import d2_picks
from prune_lib.ordering import with_dense_index, with_running_total

__all__ = [
    "CCS_HARDEST",
    "CCS_STRATA",
    "METHODS",
    "NEEDS_DIFFICULTY",
    "NEEDS_ORDER",
    "rank_baseline",
    "take_budget",
]

METHODS = ("random", "hardest", "easiest", "moderate", "ccs", "d2", "dual", "item-quota", "recent")
NEEDS_DIFFICULTY = frozenset({"hardest", "easiest", "moderate", "ccs", "d2", "dual"})
NEEDS_ORDER = frozenset({"recent"})

# Beta of the paper: the share of the hardest that is set aside, mostly noise.
CCS_HARDEST = 0.1
# The paper's number of strata.
CCS_STRATA = 50

# DUAL's constants: the parameters of its Beta distribution sum to 16, of which difficulty gets 15 at most;
# the power of the pruned share is the paper's for CIFAR-10; ten sessions, those with the largest scores,
# anchor the preference.
DUAL_BETA, DUAL_POWER, DUAL_ANCHORS = 15.0, 5.5, 10

# Columns of the total order: what the rule says, then ties.
_LATE, _KEY, _DRAW = "__late", "__key", "__draw"
_ORDER = (_LATE, _KEY, "tie", "sid")


def rank_baseline(
    method: str,
    sessions: DataFrame,
    seed: int,
    *,
    cost: Literal["n", "one"] = "n",
    ratio: float = 0.5,
) -> DataFrame:
    """All sessions in a baseline's order of choice.

    Args:
        method: one of `METHODS`.
        sessions: sid BIGINT, items ARRAY<INT>, n INT, tie BIGINT, q DOUBLE (percentile rank of the
            difficulty, higher = harder; null where unknown), age DOUBLE (0 newest, 1 oldest; or
            null). For ccs also, where there is one, difficulty DOUBLE (the score that q ranks); for dual
            disagreement DOUBLE (of the experts).
        seed: seed of the draws (random, ccs, dual, item-quota).
        cost: what the budget counts: 'n' interactions, 'one' sessions.
        ratio: share that is to be kept, in (0, 1]: dual's order depends on it.

    Returns:
        sid BIGINT, n INT, rank BIGINT (1 = chosen first), running BIGINT (cost of the sessions up
        to and including this one); settled. Ties go by (tie, sid): the same whatever the
        partitions. Cost: two range shuffles with a sort; ccs one more, item-quota a window by item; d2 one
        task's memory, see d2.py.

    Raises:
        ValueError: no such method.
    """
    rule = _dual(ratio) if method == "dual" else _RULES.get(method)
    if rule is None:
        raise ValueError(f"method must be one of {', '.join(METHODS)}; got {method}")
    drawn = sessions.withColumn(_DRAW, F.xxhash64(F.lit(seed).cast("bigint"), F.col("tie")))
    keyed = rule(drawn).select("sid", "n", "tie", _LATE, _KEY)
    ranked = with_dense_index(keyed, _ORDER, "rank", start=1).select("sid", "n", "rank")
    if cost == "one":
        return ranked.withColumn("running", F.col("rank"))
    return with_running_total(ranked, ("rank",), "n", "running").select("sid", "n", "rank", "running")


def take_budget(ranked: DataFrame, budget: int) -> DataFrame:
    """The longest prefix of the order whose cost fits the budget.

    Args:
        ranked: a frame of `rank_baseline`; a session costs at least 1, so its running cost grows.
        budget: in the unit of the running cost.

    Returns:
        The same columns. A smaller budget gives a prefix of a larger one's.
    """
    return ranked.filter(F.col("running") <= budget)


def _by(key: Callable[[], Column]) -> Callable[[DataFrame], DataFrame]:
    """Smallest key first, sessions without a key last.

    The key comes as a function: a Column cannot be made before there is a Spark session.
    """

    def rule(sessions: DataFrame) -> DataFrame:
        return sessions.withColumn(_KEY, key()).withColumn(_LATE, F.col(_KEY).isNull())

    return rule


def _ccs(sessions: DataFrame) -> DataFrame:
    """The hardest set aside; of strata of equal width over the score, a session of each in turn.

    Every prefix holds equally many sessions of each stratum that has so many. The sessions set
    aside come after all others, easiest first; then those without a difficulty.
    """
    # Strata of equal width in q would be of equal size, and the rule no other than random.
    score = F.col("difficulty" if "difficulty" in sessions.columns else "q")
    late = (
        F.when(F.col("q").isNull() | score.isNull(), 2).when(F.col("q") > 1.0 - CCS_HARDEST, 1).otherwise(0)
    )
    staged = sessions.withColumn(_LATE, late).withColumn("__score", score)
    span = staged.filter(F.col(_LATE) == 0).agg(
        F.min("__score").alias("__low"), F.max("__score").alias("__high")
    )
    width = F.col("__high") - F.col("__low")
    # Where all scores are one there is one stratum, and no division by zero in ANSI mode.
    place = F.when(width > 0, F.floor((F.col("__score") - F.col("__low")) / width * CCS_STRATA))
    # The largest score closes the last stratum.
    stratum = F.least(F.coalesce(place, F.lit(0)), F.lit(CCS_STRATA - 1))
    strata = staged.crossJoin(F.broadcast(span)).withColumn("__stratum", stratum.cast("int"))
    # The place in the stratum comes from one dense index: a window by stratum has few, huge tasks.
    indexed = with_dense_index(
        strata.select("sid", "n", "tie", "q", _LATE, "__stratum", _DRAW),
        (_LATE, "__stratum", _DRAW, "tie", "sid"),
        "__index",
    )
    first = indexed.groupBy(_LATE, "__stratum").agg(F.min("__index").alias("__first"))
    turn = (F.col("__index") - F.col("__first")).cast("double")
    return indexed.join(F.broadcast(first), [_LATE, "__stratum"]).withColumn(
        _KEY, F.when(F.col(_LATE) == 0, turn).when(F.col(_LATE) == 1, F.col("q")).otherwise(0.0)
    )


def _d2(sessions: DataFrame) -> DataFrame:
    """D2's order of the sessions with a difficulty."""
    picks = d2_picks(sessions.filter(F.col("q").isNotNull()))
    return (
        sessions.join(picks, "sid", "left")
        .withColumn(_KEY, F.col("pick"))
        .withColumn(_LATE, F.col("pick").isNull())
    )


def _dual(ratio: float) -> Callable[[DataFrame], DataFrame]:
    """A draw without replacement in proportion to score times Beta density, as an order.

    Probabilities of a next item among thousands are all near nought, where DUAL has those of a few classes:
    the rank 1 - q stands for a session's mean probability, the experts' disagreement for its deviation.
    """

    def rule(sessions: DataFrame) -> DataFrame:
        score = F.col("q") * F.col("disagreement")
        scored = sessions.withColumn("__score", score)
        top = scored.filter(F.col("__score").isNotNull()).orderBy(F.desc("__score"), "tie", "sid")
        # Decimals: a mean that does not depend on the order of addition.
        mean = F.avg((1 - F.col("q")).cast("decimal(12,9)")).cast("double")
        anchor = top.limit(DUAL_ANCHORS).agg(F.coalesce(mean, F.lit(0.5)).alias("__anchor"))
        b = DUAL_BETA * (1 - F.col("__anchor")) * (1 - (1 - ratio) ** DUAL_POWER)
        a = DUAL_BETA + 1 - b
        easy = 1 - F.col("q")
        weight = (a - 1) * F.log(easy) + (b - 1) * F.log(F.col("q")) + F.log("__score")
        # The smallest of -log(u) / weight, u uniform, is such a draw (Efraimidis and Spirakis, 2006).
        u = (F.pmod(F.col(_DRAW), F.lit(2**53)) + 0.5) / float(2**53)
        key = F.round(F.log(-F.log(u)) - weight, 9)
        keyed = scored.crossJoin(F.broadcast(anchor)).withColumn(_KEY, F.when(F.col("__score") > 0, key))
        late = F.when(F.col("q").isNull(), 2).when(F.col(_KEY).isNull(), 1).otherwise(0)
        return keyed.withColumn(_LATE, late)

    return rule


def _item_quota(sessions: DataFrame) -> DataFrame:
    """The session's best place over its items, where each item has its sessions in the order drawn.

    All items draw by the same hash, so the sessions that are first of one item tend to be first of
    their other items too, and fewer of them fill every item's quota (coordinated sampling).
    """
    turns = Window.partitionBy("item").orderBy(_DRAW, "tie", "sid")
    best = (
        sessions.select("sid", "tie", _DRAW, F.explode(F.array_distinct("items")).alias("item"))
        .withColumn("place", F.row_number().over(turns))
        .groupBy("sid")
        .agg(F.min("place").cast("bigint").alias(_KEY))
    )
    return sessions.join(best, "sid").withColumn(_LATE, F.lit(False))


_RULES: dict[str, Callable[[DataFrame], DataFrame]] = {
    "random": _by(lambda: F.col(_DRAW)),
    "hardest": _by(lambda: -F.col("q")),
    "easiest": _by(lambda: F.col("q")),
    "moderate": _by(lambda: F.abs(F.col("q") - 0.5)),
    "ccs": _ccs,
    "d2": _d2,
    "item-quota": _item_quota,
    "recent": _by(lambda: F.col("age")),
}
