"""Clicks in order, judged, and gathered into sessions.

Clicks are gathered by owner in one shuffle; doubles are found, users cut by inactivity and bots seen in the
arrays (`gathered`). What needs each row, and never holds an owner's clicks in memory at once, goes by windows
(`row_by_row`): owners with more clicks than a session may have, and those whose rows go to quarantine. Both
judge alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

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
    where = [name for name in ("night", "seq", "place") if name in clicks.columns]
    rest = [name for name in ("more", "warned") if name in clicks.columns]
    return ["us", *order, *where, "item", *kind, *rest]


def _click(clicks: DataFrame, form: Form) -> Column:
    """A click as what it is ordered by; its time is a TIMESTAMP, as the table has it."""
    named = {name: F.col(name) for name in _fields(clicks, form)}
    named["us"] = F.timestamp_micros("us")
    return F.struct(*[column.alias(name) for name, column in named.items()])


def _arrays(clicks: DataFrame, form: Form, nights: bool) -> list[Column]:
    """An array of sorted clicks as an array of each of their columns, without what only ordered them."""
    more = clicks.schema["more"].dataType if "more" in clicks.columns else StructType()
    assert isinstance(more, StructType)
    wanted = {"items": "item", "times": "us"}
    wanted |= {"kinds": "kind"} if form.kind is not None else {}
    wanted |= {"orders": "order"} if form.order is not None else {}
    wanted |= {name: f"more.{name}" for name in more.names}
    wanted |= {"warns": "warned"} if "warned" in clicks.columns else {}
    wanted |= {"nights": "night"} if nights else {}
    return [F.col(f"clicks.{name}").alias(new) for new, name in wanted.items()]


def _same(form: Form) -> list[str]:
    """By what two clicks of an owner are one: without times also by their place."""
    order = ("order",) if form.order is not None else ()
    kind = ("kind",) if form.kind is not None else ()
    return ["us", *order, "item", *kind, *(() if form.time is not None else ("place",))]


def gathered(
    clicks: DataFrame, form: Form, severity: Mapping[str, Severity], cutting: Cutting, nights: bool
) -> DataFrame:
    """Clicks of owners with not too many, a row a session.

    Args:
        clicks: of `judged`, those that no rule takes out.
        form: of the source.
        severity: of every rule.
        cutting: what is a session.
        nights: whether there are clicks of nights before among them.

    Returns:
        The columns of `sessions_of` (doubles left out; null or of nights before where a rule takes the
        session out), doubles INT (how many; of an owner with several sessions in one of them; where they only
        warn they are in the arrays), rule STRING (by which the session is taken out, or null), long_session,
        fast_session INT (its new clicks, if it breaks that rule). Cost: one shuffle; an owner's clicks are in
        memory at once.
    """
    same = _same(form)
    # Rows go through the shuffle, not arrays of a few: a fifth less time.
    here = clicks.repartition("owner")
    every = here.groupBy("owner").agg(F.sort_array(F.collect_list(_click(clicks, form))).alias("all"))
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
    for apart in _cuts(cutting):
        out = _cut(out, apart)
    n = F.size("clicks")
    first, last = (F.unix_micros(x["us"]) for x in (F.get("clicks", F.lit(0)), F.element_at("clicks", -1)))
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
    out = out.select("owner", left.alias("clicks"), "doubles", "rule", *counts)
    named = F.col("owner")
    if cutting.cuts:
        named = _name(F.unix_micros(F.get("clicks", F.lit(0))["us"]))
    arrays = _arrays(clicks, form, nights)
    return out.select(named.alias("session_id"), "owner", *arrays, "doubles", "rule", *OF_SESSIONS)


def _name(first: Column) -> Column:
    """Id of a session that was cut from its owner's clicks, by the microseconds of its first."""
    return F.concat_ws("@", "owner", first.cast("string"))


def _cuts(cutting: Cutting) -> list[Callable[[Column, Column], Column]]:
    """Whether a session ends between two clicks, for each way of cutting."""

    def micros(click: Column) -> Column:
        return F.unix_micros(click["us"])

    out: list[Callable[[Column, Column], Column]] = []
    if (gap := cutting.gap) is not None:
        out.append(lambda before, after: micros(after) - micros(before) > gap)
    if (longest := cutting.longest) is not None:

        def piece(click: Column) -> Column:
            return F.floor((micros(click) - micros(F.get("clicks", F.lit(0)))) / longest)

        out.append(lambda before, after: piece(after) != piece(before))
    return out


def _cut(sessions: DataFrame, apart: Callable[[Column, Column], Column]) -> DataFrame:
    """Sessions cut between clicks: owner, clicks, doubles (at the first piece)."""
    n = F.size("clicks")
    ends = F.zip_with(
        F.slice("clicks", 1, n - 1),
        F.slice("clicks", 2, n),
        lambda x, y: F.coalesce(apart(x, y), F.lit(False)),
    )
    starts = F.transform(ends, lambda end, i: F.when(end, i + 1))
    marked = sessions.withColumn("starts", F.concat(F.array(F.lit(0)), F.array_compact(starts)))
    next_starts = F.concat(F.slice("starts", 2, F.size("starts")), F.array(n))
    pieces = F.zip_with("starts", next_starts, lambda x, y: F.slice("clicks", x + 1, y - x))
    parts = marked.select("owner", "doubles", F.posexplode(pieces).alias("part", "clicks"))
    doubles = F.when(F.col("part") == 0, F.col("doubles")).otherwise(0)
    return parts.select("owner", "clicks", doubles.alias("doubles"))


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
        name = _name(F.min(F.when(F.isnull("rule"), F.col("us"))).over(whole))
    out = out.withColumn("session_id", F.when(F.isnull("rule"), name))
    return out.drop("begins", "number", "piece", "clicks", "lasts", "first", "taken")


def sessions_of(clicks: DataFrame, form: Form, nights: bool) -> DataFrame:
    """One row a session, of the clicks that no rule takes out.

    Args:
        clicks: of `row_by_row`.
        form: of the source.
        nights: whether there are clicks of nights before among them.

    Returns:
        session_id, owner STRING; items ARRAY<STRING>, times ARRAY<TIMESTAMP> (of nulls where the log has
        none), kinds, orders ARRAY<STRING> and m0, m1, … ARRAY (where there are any), warns ARRAY<INT> (bits
        of `rules.warned_rules`, where there are any), nights ARRAY<INT>; all in the order of the clicks.
        Cost: one shuffle.
    """
    sorted_clicks = F.sort_array(F.collect_list(_click(clicks, form))).alias("clicks")
    grouped = clicks.where(F.isnull("rule")).groupBy("session_id", "owner").agg(sorted_clicks)
    return grouped.select("session_id", "owner", *_arrays(clicks, form, nights))


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
