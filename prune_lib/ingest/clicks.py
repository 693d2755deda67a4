"""Clicks in order, judged, and cut into sessions."""

from __future__ import annotations

from collections.abc import Mapping

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.ingest.form import Form
from prune_lib.ingest.rules import Limits, Severity, broken

__all__ = ["in_sessions", "judged", "sessions_of", "time_in_micros"]

#: Clicks of a session from which its rate says something, and microseconds between clicks of people.
_FAST_FROM, _FAST = 100, 250_000


def time_in_micros(time: Column, offset_ms: Column) -> Column:
    """Microseconds since the epoch, BIGINT: of a number by its size (s, ms, µs), of a text as it is written.

    A text needs a date; without a zone it is UTC. What is no time is null. Whole seconds reach to the year
    5138 before they are taken for milliseconds, milliseconds to that year before they are microseconds.
    """
    number = F.when(time.rlike(r"^\s*-?\d{1,18}(\.\d{1,9})?\s*$"), time.cast("decimal(28,9)"))
    size = F.abs(number)
    scale = F.when(size < 100_000_000_000, 1_000_000).when(size < 100_000_000_000_000, 1_000).otherwise(1)
    # The session's zone is not the log's: what has none is UTC.
    text = F.regexp_replace(F.trim(time), r"\s*UTC$", "Z")
    text = F.regexp_replace(text, r"^(\d{4}-\d{1,2}-\d{1,2})$", "$1 00:00:00")
    text = F.regexp_replace(text, r"^(\S+[ T][\d:.]+)$", "$1Z")
    dated = F.when(text.rlike(r"^\d{4}-\d{1,2}-\d{1,2}"), F.unix_micros(F.try_to_timestamp(text)))
    base = F.coalesce((number * scale).cast("bigint"), dated)
    offset = F.when(offset_ms.rlike(r"^\s*-?\d{1,15}\s*$"), offset_ms.cast("bigint") * 1000)
    none = offset_ms.isNull() | (F.trim(offset_ms) == "")
    return base + F.when(none, F.lit(0)).otherwise(offset)


def judged(clicks: DataFrame, form: Form, limits: Limits, severity: Mapping[str, Severity]) -> DataFrame:
    """Clicks with the rule that takes each out, those of single clicks and of doubles.

    Args:
        clicks: of `reading.read_clicks`.
        form: of the source.
        limits: what rules measure by.
        severity: of every rule.

    Returns:
        `clicks` with owner STRING (session or user), us BIGINT, rank DECIMAL, rule STRING (null: it is
        taken), warned ARRAY<STRING>, taken BOOLEAN. Cost: one shuffle of the clicks, by what they are.
    """
    owner = F.col("session" if form.session is not None else "user")
    timed = (
        clicks.withColumn("owner", owner)
        .withColumn("us", time_in_micros(F.col("time"), F.col("offset_ms")))
        # An order in numbers goes by their size, another by its letters.
        .withColumn("rank", F.expr("try_cast(`order` AS DECIMAL(38, 9))"))
    )
    rule, warned = broken(limits, severity)
    taken = timed.withColumn("rule", rule).withColumn("warned", warned).withColumn("taken", F.isnull("rule"))
    same = Window.partitionBy("owner", "taken", "item", "us", "order", "kind").orderBy(*_ORIGIN)
    double = F.col("taken") & (F.row_number().over(same) > 1)
    return _breaking(taken.withColumn("double", double), "duplicate", F.col("double"), severity).drop(
        "double"
    )


def in_sessions(
    clicks: DataFrame,
    severity: Mapping[str, Severity],
    *,
    by_session: bool,
    gap: int | None,
    longest: int | None,
    most_clicks: int,
) -> DataFrame:
    """Clicks with the session that each belongs to, and with the rules that look at whole sessions.

    Args:
        clicks: of `judged`.
        severity: of every rule.
        by_session: whether `owner` is a session, not a user.
        gap: microseconds without a click after which a new session begins; None: never.
        longest: microseconds after which a session is cut, from its first click; None: never.
        most_clicks: of a session.

    Returns:
        `clicks` with session_id STRING. Cost: the clicks of an owner are sorted by time once; nothing is held
        in memory but what Spark's windows hold, which spill.
    """
    out, parts = clicks, ["owner", "taken"]
    if gap is not None:
        of_owner = Window.partitionBy(*parts).orderBy("us", *_TIES)
        cut = F.coalesce(F.col("us") - F.lag("us").over(of_owner) > gap, F.lit(False))
        out = out.withColumn("begins", cut.cast("int"))
        out = out.withColumn("number", F.sum("begins").over(of_owner))
        parts.append("number")
    if longest is not None:
        since = F.col("us") - F.min("us").over(Window.partitionBy(*parts))
        out = out.withColumn("piece", F.floor(since / longest))
        parts.append("piece")
    whole = Window.partitionBy(*parts)
    first, last, count = F.min("us").over(whole), F.max("us").over(whole), F.count(F.lit(1)).over(whole)
    name = F.col("owner")
    if not by_session or gap is not None or longest is not None:
        name = F.concat_ws("@", "owner", first.cast("string"))
    out = out.withColumn("session_id", F.when(F.col("taken"), name))
    out = out.withColumn("clicks", count).withColumn("lasts", last - first)
    long = F.col("taken") & (F.col("clicks") > most_clicks)
    out = _breaking(out, "long_session", long, severity)
    fast = F.col("taken") & (F.col("clicks") >= _FAST_FROM) & (F.col("lasts") < F.col("clicks") * _FAST)
    out = _breaking(out, "fast_session", fast, severity)
    return out.drop("begins", "number", "piece", "clicks", "lasts")


def sessions_of(clicks: DataFrame) -> DataFrame:
    """One row a session, of the clicks that no rule takes out.

    Returns:
        session_id STRING; items ARRAY<STRING>, times ARRAY<TIMESTAMP>, kinds ARRAY<STRING>, each in the order
        of time, then of the order column, of the input, of the item. Cost: one shuffle.
    """
    click = F.struct("us", *_TIES, "item", "kind")
    grouped = (
        clicks.where("taken").groupBy("session_id").agg(F.array_sort(F.collect_list(click)).alias("clicks"))
    )
    return grouped.select(
        "session_id",
        F.col("clicks.item").alias("items"),
        F.transform("clicks.us", F.timestamp_micros).alias("times"),
        F.col("clicks.kind").alias("kinds"),
    )


#: Where a click stood in the input: what tells clicks apart that are the same otherwise.
_ORIGIN = ("origin", "at", "place")
_TIES = ("rank", "order", *_ORIGIN)


def _breaking(clicks: DataFrame, rule: str, bad: Column, severity: Mapping[str, Severity]) -> DataFrame:
    """Clicks with one rule more."""
    if severity[rule] == "warn":
        more = F.when(bad, F.array_append("warned", F.lit(rule))).otherwise(F.col("warned"))
        return clicks.withColumn("warned", more)
    out = clicks.withColumn("rule", F.when(bad, rule).otherwise(F.col("rule")))
    return out.withColumn("taken", F.isnull("rule"))
