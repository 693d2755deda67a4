"""Clicks in order, judged, and gathered into sessions.

Sessions that a column names are gathered in one shuffle, doubles and bots found in the arrays (`gathered`).
What needs each row, and never holds an owner's clicks in memory at once, goes by windows (`row_by_row`):
users, who are cut by inactivity; owners with more clicks than a session may have; those whose rows go to
quarantine. Both judge alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.ingest.form import Form
from prune_lib.ingest.rules import OF_SESSIONS, Limits, Severity, broken

__all__ = ["Cutting", "gathered", "judged", "row_by_row", "sessions_of"]

#: Clicks of a session from which its rate says something.
_FAST_FROM = 100


@dataclass(frozen=True)
class Cutting:
    """What is a session, and what is a bot's.

    Attributes:
        by_session: whether `owner` is a session, not a user.
        gap: microseconds without a click after which a new session begins; None: never.
        longest: microseconds after which a session is cut, from its first click; None: never.
        most_clicks: of a session.
        rate: clicks a second, of sessions with a hundred and more, at most.
    """

    by_session: bool
    gap: int | None
    longest: int | None
    most_clicks: int
    rate: float

    @property
    def cuts(self) -> bool:
        """Whether an owner can have several sessions."""
        return not self.by_session or self.gap is not None or self.longest is not None


def judged(clicks: DataFrame, form: Form, limits: Limits, severity: Mapping[str, Severity]) -> DataFrame:
    """Clicks with the rule of single clicks that takes each out.

    Args:
        clicks: of `reading.read_clicks`.
        form: of the source.
        limits: what rules measure by.
        severity: of every rule.

    Returns:
        `clicks` with owner STRING (session or user), rank DECIMAL (where there is an order column), rule
        STRING (null: it is taken), night INT (1; 0 is for clicks of nights before), warned INT
        (`rules.broken`). Nothing is shuffled.
    """
    owner = F.col("session" if form.session is not None else "user")
    out = clicks.withColumn("owner", owner).withColumn("night", F.lit(1))
    if form.order is not None:
        # An order in numbers goes by their size, another by its letters.
        out = out.withColumn("rank", F.expr("try_cast(`order` AS DECIMAL(38, 9))"))
    rule, warned = broken(limits, severity)
    out = out.withColumn("rule", rule)
    return out if warned is None else out.withColumn("warned", warned)


def _fields(clicks: DataFrame, form: Form) -> list[str]:
    """What a click is ordered by: its time, its order, where it stood, what it is."""
    order = ("rank", "order") if form.order is not None else ()
    kind = ("kind",) if form.kind is not None else ()
    rest = [name for name in ("more", "warned") if name in clicks.columns]
    return ["us", *order, "night", "seq", "place", "item", *kind, *rest]


def _same(form: Form) -> list[str]:
    """By what two clicks of an owner are one: without times also by their place."""
    order = ("order",) if form.order is not None else ()
    kind = ("kind",) if form.kind is not None else ()
    return ["us", *order, "item", *kind, *(() if form.time is not None else ("place",))]


def gathered(
    clicks: DataFrame, form: Form, severity: Mapping[str, Severity], cutting: Cutting, nights: bool
) -> DataFrame:
    """Clicks of sessions that a column names, a row a session.

    Args:
        clicks: of `judged`, those that no rule takes out.
        form: of the source.
        severity: of every rule.
        cutting: that cuts nothing.
        nights: whether there are clicks of nights before among them.

    Returns:
        owner STRING; clicks ARRAY<STRUCT> (in order, doubles left out; null or of nights before where a rule
        takes the session out), doubles INT (how many; where they only warn they are in `clicks`), rule STRING
        (by which the session is taken out, or null), long_session, fast_session INT (its new clicks, if it
        breaks that rule). Cost: one shuffle; an owner's clicks are in memory at once.
    """
    fields, same = _fields(clicks, form), _same(form)
    click = F.struct(*fields)
    every = clicks.groupBy("owner").agg(F.sort_array(F.collect_list(click)).alias("all"))
    n = F.size("all")
    # Of clicks that all differ in time none is a double; that is seen at a glance.
    at = "us" if form.time is not None else "place"
    tied = F.size(F.array_distinct(F.col(f"all.{at}"))) < n
    # Else they are sorted once more, by what makes them the same, each with its index.
    keyed = F.sort_array(F.transform("all", lambda x, i: F.struct(*[x[name] for name in same], i.alias("i"))))
    every = every.withColumn("keyed", F.when(tied, keyed))
    again = F.zip_with(
        F.slice("keyed", 1, F.size("keyed") - 1),
        F.slice("keyed", 2, F.size("keyed")),
        lambda one, other: F.when(_all([one[name].eqNullSafe(other[name]) for name in same]), other["i"]),
    )
    found = F.when(F.size("keyed") > 1, F.array_compact(again))
    every = every.withColumn("again", F.coalesce(found, F.array().cast("array<int>")))
    left = F.array_except(F.sequence(F.lit(0), n - 1), "again")
    distinct = F.transform(left, lambda i: F.get("all", i))
    doubles = F.size("again")
    clicks_left = F.col("all")
    if severity["duplicate"] != "warn":
        clicks_left = F.when(doubles > 0, distinct).otherwise(F.col("all"))
    out = every.select("owner", clicks_left.alias("clicks"), doubles.alias("doubles"))
    n = F.size("clicks")
    first, last = F.get("clicks", F.lit(0))["us"], F.element_at("clicks", -1)["us"]
    bad = {
        "long_session": n > cutting.most_clicks,
        "fast_session": F.coalesce((n >= _FAST_FROM) & (last - first < n * _micros(cutting)), F.lit(False)),
    }
    before = F.filter("clicks", lambda x: x["night"] == 0) if nights else F.lit(None)
    new = n - F.size(before) if nights else n
    rule = F.lit(None).cast("string")
    for name in reversed(OF_SESSIONS):
        if severity[name] != "warn":
            rule = F.when(bad[name], name).otherwise(rule)
    out = out.withColumn("rule", rule)
    counts = [F.when(bad[name], new).otherwise(0).alias(name) for name in OF_SESSIONS]
    # What nights before took stays.
    left = F.when(F.isnull("rule"), F.col("clicks"))
    left = left.otherwise(before) if nights else left
    return out.select("owner", left.alias("clicks"), "doubles", "rule", *counts)


def row_by_row(
    clicks: DataFrame, form: Form, severity: Mapping[str, Severity], cutting: Cutting
) -> DataFrame:
    """The same for each click, with sessions cut by inactivity where they are.

    Args:
        clicks: of `judged`, those that no rule takes out, and those of nights before.
        form: of the source.
        severity: of every rule.
        cutting: what is a session.

    Returns:
        `clicks` with session_id STRING, rule STRING (null: it is taken), warns ARRAY<STRING> (of doubles and
        sessions). Cost: one shuffle by owner, sorted twice; nothing is held in memory but what Spark's
        windows hold, which spill.
    """
    order = [F.col(name) for name in _fields(clicks, form)]
    same = Window.partitionBy("owner", *_same(form)).orderBy("night", *order)
    out = clicks.withColumn("warns", F.array().cast("array<string>"))
    out = _breaking(out, "duplicate", (F.row_number().over(same) > 1) & (F.col("night") == 1), severity)
    out = out.withColumn("taken", F.isnull("rule"))
    parts = ["owner", "taken"]
    if cutting.gap is not None:
        of_owner = Window.partitionBy(*parts).orderBy("us", *order)
        cut = F.coalesce(F.col("us") - F.lag("us").over(of_owner) > cutting.gap, F.lit(False))
        out = out.withColumn("begins", cut.cast("int"))
        out = out.withColumn("number", F.sum("begins").over(of_owner))
        parts.append("number")
    if cutting.longest is not None:
        since = F.col("us") - F.min("us").over(Window.partitionBy(*parts))
        out = out.withColumn("piece", F.floor(since / cutting.longest))
        parts.append("piece")
    whole = Window.partitionBy(*parts)
    first, last, count = F.min("us").over(whole), F.max("us").over(whole), F.count(F.lit(1)).over(whole)
    out = out.withColumn("first", first).withColumn("clicks", count).withColumn("lasts", last - first)
    # What nights before took stays, and is a session without tonight's.
    new = F.col("taken") & (F.col("night") == 1)
    fast = (F.col("clicks") >= _FAST_FROM) & (F.col("lasts") < F.col("clicks") * _micros(cutting))
    out = _breaking(out, "long_session", new & (F.col("clicks") > cutting.most_clicks), severity)
    out = _breaking(out, "fast_session", new & F.coalesce(fast, F.lit(False)), severity)
    name = F.col("owner")
    if cutting.cuts:
        kept = F.min(F.when(F.isnull("rule"), F.col("us"))).over(whole)
        name = F.concat_ws("@", "owner", kept.cast("string"))
    out = out.withColumn("session_id", F.when(F.isnull("rule"), name))
    return out.drop("begins", "number", "piece", "clicks", "lasts", "first", "taken")


def sessions_of(clicks: DataFrame, form: Form) -> DataFrame:
    """One row a session, of the clicks that no rule takes out.

    Args:
        clicks: of `row_by_row`.
        form: of the source.

    Returns:
        session_id, owner STRING; clicks ARRAY<STRUCT> in order. Cost: one shuffle.
    """
    click = F.struct(*_fields(clicks, form))
    taken = clicks.where(F.isnull("rule"))
    return taken.groupBy("session_id", "owner").agg(F.sort_array(F.collect_list(click)).alias("clicks"))


def _micros(cutting: Cutting) -> Column:
    """Microseconds between the clicks of people, on average."""
    return F.lit(round(1e6 / cutting.rate))


def _all(conditions: list[Column]) -> Column:
    out = conditions[0]
    for condition in conditions[1:]:
        out = out & condition
    return out


def _breaking(clicks: DataFrame, rule: str, bad: Column, severity: Mapping[str, Severity]) -> DataFrame:
    """Clicks with one rule more; those that a rule took out before stay with it."""
    bad = bad & F.isnull("rule")
    if severity[rule] == "warn":
        more = F.when(bad, F.array_append("warns", F.lit(rule))).otherwise(F.col("warns"))
        return clicks.withColumn("warns", more)
    return clicks.withColumn("rule", F.when(bad, rule).otherwise(F.col("rule")))
