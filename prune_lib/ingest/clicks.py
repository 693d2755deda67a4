"""Clicks in order, judged, and gathered into sessions.

Clicks are gathered by owner in one shuffle; doubles are found, users cut by inactivity and bots seen in the
arrays (`gathered`). What needs each row, and never holds an owner's clicks in memory at once, goes by windows
(`row_by_row`): owners with more clicks than a session may have, and those whose rows go to quarantine. Both
judge alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F
from pyspark.sql.types import StructType

from prune_lib.ingest.form import Form
from prune_lib.ingest.rules import KNOWN, OF_SESSIONS, Limits, Severity, broken

__all__ = ["Cutting", "gathered", "judged", "row_by_row", "sessions_of", "with_occurrences", "with_turns"]

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
    rest = [name for name in ("nth", "more", "warned") if name in clicks.columns]
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


def _same(clicks: DataFrame, form: Form) -> list[str]:
    """By what two clicks of an owner are one; empty where nothing tells.

    A row that is a session may have one time for all its clicks: an item that comes again there is told by
    how often it stood there before. Without times clicks are told by their place in a list, if there is one,
    and from those of nights before by `with_turns`.
    """
    order = ("order",) if form.order is not None else ()
    kind = ("kind",) if form.kind is not None else ()
    if form.time is not None:
        return ["us", *order, "item", *kind, *(("nth",) if form.rows == "sessions" else ())]
    listed = form.rows == "sessions" or form.events is not None
    told = "nth" if "nth" in clicks.columns else "place"
    return ["us", *order, "item", *kind, told] if listed else []


def with_turns(clicks: DataFrame, form: Form) -> DataFrame:
    """Clicks of some nights, each with what tells it from those of the others where there are no times.

    A place in a list does not: a session of nights before has lost its bad clicks, and was put together from
    several rows. How often an item stood in its owner's clicks before is the same whenever they are read.

    Args:
        clicks: of `judged`, those that no rule takes out, and those of nights before.
        form: of the source.

    Returns:
        `clicks`, with nth INT where they come from lists without times: how many clicks like it its owner has
        before it, of its night and without doubles; that of a double is that of the click that it repeats.
        Cost there: a shuffle by owner, sorted thrice.
    """
    same = _same(clicks, form)
    if form.time is not None or not same:
        return clicks
    told = ["owner", "night", *same[:-1]]
    order = [F.col(name) for name in _fields(clicks, form)]
    alike = Window.partitionBy(*told, same[-1]).orderBy(*order)
    out = clicks.repartition("owner").withColumn("double", F.row_number().over(alike) > 1)
    turn = F.row_number().over(Window.partitionBy(*told, "double").orderBy(*order))
    out = out.withColumn("turn", turn).withColumn("nth", F.first("turn").over(alike) - 1)
    return out.drop("double", "turn")


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
        warn they are in the arrays), known INT (likewise, of those that a night before took, which are never
        taken again), rule STRING (by which the session is taken out, or null), long_session, fast_session INT
        (its new clicks, if it breaks that rule). Cost: one shuffle; an owner's clicks are in memory at once.
    """
    same = _same(clicks, form)
    # Rows go through the shuffle, not arrays of a few: a fifth less time.
    here = clicks.repartition("owner")
    every = here.groupBy("owner").agg(F.sort_array(F.collect_list(_click(clicks, form))).alias("all"))
    none = F.array().cast("array<int>")
    every = every.withColumn("again", none).withColumn("known", none)
    if same:
        # Of clicks that all differ in time none is a double; that is seen at a glance.
        at = "us" if form.time is not None else same[-1]
        tied = F.size(F.array_distinct(F.col(f"all.{at}"))) < F.size("all")
        # Else they are sorted once more, by what makes them the same, each with its index.
        more = ("night",) if nights else ()
        keyed = F.transform(
            "all",
            lambda x, i: F.struct(*[x[n] for n in same], i.alias("i"), *[x[n].alias(n) for n in more]),
        )
        every = every.withColumn("keyed", F.when(tied, F.sort_array(keyed)))
        every = _with_known(every, same) if nights else every.withColumn("again", _again(same))
    taken_out = F.col("known") if severity["duplicate"] == "warn" else F.concat("known", "again")
    every = every.withColumn("out", taken_out)
    left = F.array_except(F.sequence(F.lit(0), F.size("all") - 1), "out")
    distinct = F.transform(left, lambda i: F.get("all", i))
    clicks_left = F.when(F.size("out") > 0, distinct).otherwise(F.col("all"))
    sizes = [F.size(name).alias(new) for name, new in (("again", "doubles"), ("known", "known"))]
    out = every.select("owner", clicks_left.alias("clicks"), *sizes)
    for apart in _cuts(cutting):
        out = _cut(out, apart)
    n = F.size("clicks")
    first, last = (F.unix_micros(x["us"]) for x in (F.get("clicks", F.lit(0)), F.element_at("clicks", -1)))
    bad = {
        "long_session": n > cutting.most_clicks,
        "fast_session": F.coalesce((n >= _FAST_FROM) & _fast(last - first, n, cutting), F.lit(False)),
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
    out = out.select("owner", left.alias("clicks"), "doubles", "known", "rule", *counts)
    if nights and cutting.gap is not None:
        # What clicks that are taken out had bridged is apart again, as it was.
        out = _cut(out, _cuts(cutting)[0], F.isnotnull("rule"))
    named = F.col("owner")
    if cutting.cuts:
        named = _name(F.unix_micros(F.get("clicks", F.lit(0))["us"]))
    arrays = _arrays(clicks, form, nights)
    return out.select(named.alias("session_id"), "owner", *arrays, "doubles", "known", "rule", *OF_SESSIONS)


def _again(same: Sequence[str]) -> Column:
    """Indices of doubles among `keyed`: sorted clicks, or null."""
    again = F.zip_with(
        F.slice("keyed", 1, F.size("keyed") - 1),
        F.slice("keyed", 2, F.size("keyed")),
        lambda one, other: F.when(~_differ(one, other, same), other["i"]),
    )
    found = F.when(F.size("keyed") > 1, F.array_compact(again))
    return F.coalesce(found, F.array().cast("array<int>"))


def _with_known(owners: DataFrame, same: Sequence[str]) -> DataFrame:
    """`owners`, with again (indices of tonight's doubles of each other) and known (of nights before's)."""

    def of(night: int, some: Callable[[Column], Column]) -> Column:
        # Of clicks that are the same those of nights before come first.
        def indices(run: Column) -> Column:
            found = F.transform(some(run), lambda x: x["i"])
            return F.when(F.get(run, F.lit(0))["night"] == night, found)

        every = F.flatten(F.array_compact(F.transform("runs", indices)))
        return F.coalesce(every, F.array().cast("array<int>"))

    cut = _parted(owners, "keyed", lambda one, other: _differ(one, other, same), "runs")
    again = of(1, lambda run: F.slice(run, 2, F.size(run)))
    known = of(0, lambda run: F.filter(run, lambda x: x["night"] == 1))
    return cut.withColumn("again", again).withColumn("known", known)


def _differ(one: Column, other: Column, names: Sequence[str]) -> Column:
    return ~_all([one[name].eqNullSafe(other[name]) for name in names])


def _parted(rows: DataFrame, of: str, apart: Callable[[Column, Column], Column], parts: str) -> DataFrame:
    """Rows with an array cut between some elements, as an array of arrays."""
    n = F.size(of)
    ends = F.zip_with(
        F.slice(of, 1, F.greatest(n - 1, F.lit(0))),
        F.slice(of, 2, F.greatest(n, F.lit(0))),
        lambda x, y: F.coalesce(apart(x, y), F.lit(False)),
    )
    starts = F.transform(ends, lambda end, i: F.when(end, i + 1))
    marked = rows.withColumn("starts", F.concat(F.array(F.lit(0)), F.array_compact(starts)))
    next_starts = F.concat(F.slice("starts", 2, F.size("starts")), F.array(n))
    pieces = F.zip_with("starts", next_starts, lambda x, y: F.slice(of, x + 1, y - x))
    return marked.withColumn(parts, F.when(F.isnotnull(of), pieces)).drop("starts")


def with_occurrences(rows: DataFrame, arrays: Sequence[str]) -> DataFrame:
    """Rows with lists, and of each of their elements how many like it stand before it in the row.

    Args:
        rows: with lists.
        arrays: their names; elements of all at one place are one, and there are as many as in the first.

    Returns:
        `rows` with nth ARRAY<INT>; null where the first list has nothing twice.
    """
    first, names = arrays[0], [f"x{k}" for k in range(len(arrays))]
    several = F.size(F.array_distinct(first)) < F.size(first)
    pairs = list(zip(arrays, names, strict=True))
    keyed = F.transform(
        first, lambda _, i: F.struct(*[F.get(of, i).alias(x) for of, x in pairs], i.alias("i"))
    )
    out = rows.withColumn("keyed", F.when(several, F.sort_array(keyed)))
    out = _parted(out, "keyed", lambda one, other: _differ(one, other, names), "runs")
    numbers = F.transform(
        "runs", lambda run: F.transform(run, lambda x, n: F.struct(x["i"].alias("i"), n.alias("n")))
    )
    nth = F.transform(F.sort_array(F.flatten(numbers)), lambda x: x["n"])
    return out.withColumn("nth", nth).drop("keyed", "runs")


def _name(first: Column) -> Column:
    """Id of a session that was cut from its owner's clicks, by the microseconds of its first."""
    return F.concat_ws("@", "owner", first.cast("string"))


def _cuts(cutting: Cutting) -> list[Callable[[Column, Column], Column]]:
    """Whether a session ends between two clicks, for each way of cutting; by the gap first."""

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


def _cut(
    sessions: DataFrame, apart: Callable[[Column, Column], Column], which: Column | None = None
) -> DataFrame:
    """Sessions cut between clicks, all or some of them: their columns, counts at the first piece only."""
    some = F.col("clicks") if which is None else F.when(which, F.col("clicks"))
    cut = _parted(sessions.withColumn("some", some), "some", apart, "pieces")
    pieces = F.coalesce("pieces", F.array("clicks"))
    parts = cut.select(*sessions.drop("clicks").columns, F.posexplode(pieces).alias("part", "piece"))
    first = F.col("part") == 0
    values = {name: F.when(first, F.col(name)).otherwise(0) for name in sessions.columns}
    values |= {"clicks": F.col("piece")} | {n: F.col(n) for n in ("owner", "rule") if n in values}
    return parts.select(*[value.alias(name) for name, value in values.items()])


def row_by_row(
    clicks: DataFrame, form: Form, severity: Mapping[str, Severity], cutting: Cutting, nights: bool
) -> DataFrame:
    """The same for each click, with sessions cut by inactivity where they are.

    Args:
        clicks: of `judged`, those that no rule takes out, and those of nights before.
        form: of the source.
        severity: of every rule.
        cutting: what is a session.
        nights: whether there are clicks of nights before among them.

    Returns:
        `clicks` with session_id STRING, rule STRING (null: it is taken; `rules.KNOWN`: a night before took
        it), warns ARRAY<STRING> (of doubles and sessions). Cost: one shuffle by owner, sorted twice, on
        nights and with a gap once more; nothing is held in memory but what Spark's windows hold, which spill.
    """
    order = [F.col(name) for name in _fields(clicks, form)]
    out = clicks.withColumn("warns", F.array().cast("array<string>"))
    if same := _same(clicks, form):
        alike = Window.partitionBy("owner", *same).orderBy("night", *order)
        upto = alike.rowsBetween(Window.unboundedPreceding, Window.currentRow)
        out = out.withColumn("again", F.row_number().over(alike) > 1)
        out = out.withColumn("known", (F.first("night").over(upto) == 0) & (F.col("night") == 1))
        out = out.withColumn("rule", F.when(F.col("known"), F.lit(KNOWN)).otherwise(F.col("rule")))
        out = _breaking(out, "duplicate", F.col("again") & (F.col("night") == 1), severity)
        out = out.drop("again", "known")
    out = out.withColumn("taken", F.isnull("rule"))
    parts = ["owner", "taken"]
    if cutting.gap is not None:
        out = _numbered(out, "number", parts, order, cutting.gap)
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
    fast = (F.col("clicks") >= _FAST_FROM) & _fast(F.col("lasts"), F.col("clicks"), cutting)
    out = _breaking(out, "long_session", new & (F.col("clicks") > cutting.most_clicks), severity)
    out = _breaking(out, "fast_session", new & F.coalesce(fast, F.lit(False)), severity)
    out = out.withColumn("left", F.isnull("rule"))
    parts.append("left")
    if nights and cutting.gap is not None:
        # What clicks that are taken out had bridged is apart again, as it was.
        out = _numbered(out, "run", parts, order, cutting.gap)
        parts.append("run")
    name = _name(F.min("us").over(Window.partitionBy(*parts))) if cutting.cuts else F.col("owner")
    out = out.withColumn("session_id", F.when(F.col("left"), name))
    return out.drop("number", "piece", "clicks", "lasts", "first", "taken", "left", "run")


def _numbered(
    clicks: DataFrame, number: str, parts: Sequence[str], order: Sequence[Column], gap: int
) -> DataFrame:
    """Clicks with the number of the run, without a longer gap, in which each stands in its part."""
    of_part = Window.partitionBy(*parts).orderBy("us", *order)
    cut = F.coalesce(F.col("us") - F.lag("us").over(of_part) > gap, F.lit(False))
    begun = clicks.withColumn("begins", cut.cast("int"))
    return begun.withColumn(number, F.sum("begins").over(of_part)).drop("begins")


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


def _fast(lasts: Column, clicks: Column, cutting: Cutting) -> Column:
    """Whether so many clicks in so many microseconds are more than people make."""
    # BIGINT: times a few thousand clicks, an INT, they are beyond an INT.
    least = clicks * F.lit(round(1e6 / cutting.rate)).cast("bigint")
    # One time of all clicks, of a day or of a row that is a session, says nothing of how fast they came.
    return (lasts > 0) & (lasts < least)


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
