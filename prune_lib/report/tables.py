"""A run summed up from its tables, in frames whose size does not grow with the sessions."""

from __future__ import annotations

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from prune_lib.errors import InputError
from prune_lib.experts.settings import EXPERTS
from prune_lib.lookup import Tables
from prune_lib.report.facts import BANDS, MIXTURE, TWENTIETHS, Facts

__all__ = ["curve", "gather", "losses", "shares"]

#: Points of the curve over budgets: finer than a slider's pixels tell apart.
_BUDGETS = 200
_LOSS_BINS = 50
#: A loss beyond it is that of a target with less than a billionth of the probability: it joins the last bin.
_HIGHEST_LOSS = 20.0
#: Sessions of so many clicks or more are one group.
_LONG = 20


def gather(tables: Tables) -> Facts:
    """Sum up the tables of the newest run of an output.

    Cost: six aggregates over the decisions, of which the largest result has a few hundred rows; the items
    table's counts on the driver.

    Args:
        tables: those of the output.

    Raises:
        InputError: there are no such tables, or they are of two runs.
    """
    decisions, items = tables.companion("decisions"), tables.companion("items")
    runs = {frame.select("run_id").first() for frame in (decisions, items)}
    first = runs.pop()
    if runs or first is None:
        raise InputError(
            f"The tables beside {tables.output} are not of one run: another run is writing them, or one of "
            "them was changed. Wait for its end, or prune again."
        )
    run, settings = tables.run(first["run_id"])
    scored = run["experts_version"] is not None
    per_item = (
        # Of samples: an item that only begins sessions is no target of any, and cannot be lost.
        items.filter("sessions_before > 0")
        .select("band", "sessions_before", "sessions_after", "interactions_before", "interactions_after")
        .toPandas()
    )
    return Facts(
        output=tables.output,
        run=run,
        settings=settings,
        samples="length" in decisions.columns,
        reasons=_reasons(decisions),
        items=per_item,
        curve=curve(decisions, items, float(run["objective"] or 0.0)),
        losses=losses(decisions) if scored else pd.DataFrame(),
        shares=shares(decisions) if scored else pd.DataFrame(),
        lengths=_lengths(decisions),
        versions=tables.versions,
    )


def _reasons(decisions: DataFrame) -> pd.DataFrame:
    counted = decisions.groupBy("reason", "kept").agg(
        F.count(F.lit(1)).alias("sessions"),
        F.sum(_cost(decisions)).alias("interactions"),
        F.avg("difficulty").alias("difficulty"),
    )
    found: pd.DataFrame = counted.toPandas()
    ordered: pd.DataFrame = found.sort_values(
        ["kept", "sessions", "reason"], ascending=[False, False, True], ignore_index=True
    )
    return ordered


def _cost(decisions: DataFrame) -> Column:
    """What a session counts in interactions: a sample is one."""
    return F.lit(1) if "length" in decisions.columns else F.col("interactions")


def _lengths(decisions: DataFrame) -> pd.DataFrame:
    length = F.least(F.col("interactions"), F.lit(_LONG)).alias("interactions")
    counted = decisions.groupBy(length, "kept").agg(F.count(F.lit(1)).alias("sessions"))
    found: pd.DataFrame = counted.toPandas()
    out: pd.DataFrame = found.sort_values(["interactions", "kept"], ignore_index=True)
    return out


def curve(decisions: DataFrame, items: DataFrame, objective: float) -> pd.DataFrame:
    """What every smaller budget would have kept, from the nested ranks.

    Args:
        decisions: the decisions table.
        items: the items table.
        objective: what the whole run reached, a share of the largest.

    Returns:
        A row a budget, the smallest first: rank (the largest kept), sessions, interactions, items, one
        column a band of BANDS (its items), objective (share of the largest; NaN where a session has no gain:
        a baseline's, or a floor's by an older version), difficulty (mean rank; NaN where none has one).
        Cumulative and exact at each rank. Cost: two aggregates of the kept decisions and a join of the items
        with them.
    """
    kept = decisions.filter("kept")
    n = kept.count()
    # The ranks of budget b are those in (b n / _BUDGETS, (b + 1) n / _BUDGETS].
    budget = F.ceil(F.col("rank") * F.lit(_BUDGETS) / F.lit(n)).cast("int") - 1
    sums = (
        kept.groupBy(budget.alias("budget"))
        .agg(
            F.count(F.lit(1)).alias("sessions"),
            F.sum(_cost(decisions)).alias("interactions"),
            F.sum("gain").alias("gain"),
            F.count("gain").alias("known"),
            F.sum("difficulty").alias("difficulty"),
            F.count("difficulty").alias("scored"),
        )
        .toPandas()
    )
    if "length" in decisions.columns:  # an item is there from the first sample that predicts it
        first = kept.groupBy(F.col("target").alias("item")).agg(F.min("rank").alias("rank"))
        banded = items.select("item", "band").join(first, "item")
    else:
        first = kept.select(F.col("session_id").alias("first_kept_session"), "rank")
        banded = items.select("first_kept_session", "band").join(first, "first_kept_session")
    new = banded.groupBy(budget.alias("budget"), "band").count().toPandas()
    by_band = new.pivot_table(index="budget", columns="band", values="count", aggfunc="sum")
    out = sums.set_index("budget").reindex(range(_BUDGETS)).fillna(0.0).cumsum()
    for band in BANDS:
        own = by_band[band] if band in by_band else pd.Series(dtype=float)
        out[band] = own.reindex(range(_BUDGETS)).fillna(0.0).cumsum()
    out["items"] = out[list(BANDS)].sum(axis=1)
    total, known = float(out["gain"].iloc[-1]), int(out["known"].iloc[-1]) == n
    out["objective"] = out["gain"] / total * objective if total > 0 and known else np.nan
    # Of those that have one: a session of one click, and all of a baseline, have none.
    out["difficulty"] = (out["difficulty"] / out["scored"]).where(out["scored"] > 0)
    out["rank"] = (np.arange(1, _BUDGETS + 1) * n) // _BUDGETS
    counts = ["rank", "sessions", "interactions", "items", *BANDS]
    out[counts] = out[counts].astype("int64")
    different: pd.DataFrame = out[out["rank"] > 0].drop_duplicates("rank")
    chosen: pd.DataFrame = different[[*counts, "objective", "difficulty"]].reset_index(drop=True)
    return chosen


def losses(decisions: DataFrame) -> pd.DataFrame:
    """How the losses of the experts and the mixture are distributed.

    Returns:
        expert (one of EXPERTS, or MIXTURE), kept, low and high (bounds of the bin, nats), sessions. Cost: two
        aggregates of the decisions.
    """
    columns = {**{f"difficulty_{kind}": kind for kind in EXPERTS}, "raw_difficulty": MIXTURE}
    most = decisions.agg(F.max(F.greatest(*columns))).first()
    highest = min(float((most[0] if most else None) or 1.0), _HIGHEST_LOSS)
    width = highest / _LOSS_BINS
    pairs = F.array(
        *(F.struct(F.lit(kind).alias("expert"), F.col(c).alias("loss")) for c, kind in columns.items())
    )
    each = decisions.select("kept", F.explode(pairs).alias("pair")).select("kept", "pair.*")
    bin_of = F.least(F.floor(F.col("loss") / F.lit(width)), F.lit(_LOSS_BINS - 1)).cast("int")
    found: pd.DataFrame = (
        each.filter(F.col("loss").isNotNull())
        .groupBy("expert", "kept", bin_of.alias("bin"))
        .agg(F.count(F.lit(1)).alias("sessions"))
        .toPandas()
    )
    found = found.sort_values(["expert", "kept", "bin"], ignore_index=True)
    found["low"], found["high"] = found["bin"] * width, (found["bin"] + 1) * width
    out: pd.DataFrame = found[["expert", "kept", "low", "high", "sessions"]]
    return out


def shares(decisions: DataFrame) -> pd.DataFrame:
    """How much of each twentieth of the difficulty was kept.

    Returns:
        twentieth (0: the easiest sessions), sessions, kept, disagreement (mean, nats). Cost: an aggregate.
    """
    part = F.least(F.floor(F.col("difficulty") * TWENTIETHS), F.lit(TWENTIETHS - 1)).cast("int")
    found: pd.DataFrame = (
        decisions.filter(F.col("difficulty").isNotNull())
        .groupBy(part.alias("twentieth"))
        .agg(
            F.count(F.lit(1)).alias("sessions"),
            F.count_if("kept").alias("kept"),
            F.avg("disagreement").alias("disagreement"),
        )
        .toPandas()
    )
    out: pd.DataFrame = found.sort_values("twentieth", ignore_index=True)
    return out
