"""From judged clicks to sessions: which owners go through arrays, which row by row, and what is counted."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.ingest.clicks import Cutting, gathered, row_by_row, sessions_of, with_turns
from prune_lib.ingest.form import Form
from prune_lib.ingest.rules import KNOWN, OF_SESSIONS, RULES, Severity, warned_rules
from prune_lib.settle import settle

__all__ = ["Gathered", "Judgement", "gather", "judgement", "set_aside", "warned_clicks"]

#: Groups of owners whose clicks are counted together, to see who has many without counting each.
_GROUPS, _MOST_GROUPS = 1 << 16, 1 << 22
#: Groups with many clicks whose owners are looked for by name.
_LISTED = 1000
_HASHED = "spark.sql.execution.useObjectHashAggregateExec"
_OF_SESSIONS = ("duplicate", *OF_SESSIONS)


@dataclass(frozen=True)
class Judgement:
    """What single clicks were judged to be.

    Attributes:
        by_rule: clicks by the rule that takes them out; None: none does.
        groups: how many groups of owners there are.
        crowded: groups with more clicks than one session may have.
        lines: further lines of rows by the rule that takes them out, where a row can have several.
        records: rows, of which a list of clicks is one.
        fullest: clicks of the fullest group that is not crowded.
    """

    by_rule: Mapping[str | None, int]
    groups: int
    crowded: tuple[int, ...]
    lines: Mapping[str, int] = field(default_factory=dict)
    records: int = 0
    fullest: int = 0


def judgement(rows: DataFrame, read: int, most_clicks: int, *, several_lines: bool = False) -> Judgement:
    """Count clicks by rule, and those of groups of owners. Cost: a pass, and a shuffle of counts.

    Args:
        rows: of `clicks.judged`.
        read: how many they are.
        most_clicks: of a session.
        several_lines: whether a row can have several lines.
    """
    groups = 1 << math.ceil(math.log2(max(1, 4 * read / most_clicks)))
    groups = min(max(groups, _GROUPS), _MOST_GROUPS)
    # Rules go by negative numbers in one column with the groups: a third less time than by two.
    names = [rule.name for rule in RULES]
    rules = F.array(*map(F.lit, names))
    key = F.coalesce(-F.call_function("array_position", rules, F.col("rule")), _group(groups).cast("bigint"))
    breaks = F.length("record") - F.length(F.replace("record", F.lit("\n"), F.lit("")))
    more = F.sum(F.when(F.isnull("rule"), 0).otherwise(breaks)) if several_lines else F.max(F.lit(0))
    grouped = rows.groupBy(key.alias("key"))
    first = F.count_if(F.col("place") == 0).alias("records")
    counts = grouped.agg(F.count(F.lit(1)).alias("count"), more.alias("more"), first).toPandas()
    by_rule: Counter[str | None] = Counter()
    found = zip(counts["key"].tolist(), counts["more"].tolist(), strict=True)
    lines = {names[-at - 1]: int(n) for at, n in found if at < 0 and n}
    crowded, fullest = [], 0
    for at, count in zip(counts["key"].tolist(), counts["count"].tolist(), strict=True):
        by_rule[None if at >= 0 else names[-at - 1]] += count
        if at >= 0 and count > most_clicks:
            crowded.append(at)
        elif at >= 0:
            fullest = max(fullest, int(count))
    return Judgement(by_rule, groups, tuple(sorted(crowded)), lines, int(counts["records"].sum()), fullest)


def _group(groups: int) -> Column:
    return F.pmod(F.xxhash64("owner"), F.lit(groups)).cast("int")


def _busy(rows: DataFrame, old: DataFrame | None, found: Judgement, most_clicks: int) -> DataFrame | None:
    """Owners with more clicks, tonight's and those before, than a session may have: owner. None: nobody."""

    def more_than(clicks: DataFrame, many: int) -> DataFrame:
        return clicks.groupBy("owner").count().where(F.col("count") > many).select("owner")

    groups = _group(found.groups).isin(list(found.crowded[:_LISTED]))
    parts = [rows.where(groups) if len(found.crowded) <= _LISTED else rows] if found.crowded else []
    if old is not None:
        # Who is in no crowded group has, tonight, no more than the fullest of the others.
        many = settle(more_than(old, most_clicks - found.fullest))
        parts += [] if many.isEmpty() else [rows.join(many, "owner", "left_semi")]
    if not parts:
        return None
    busy = more_than(parts[0], most_clicks)
    for part in parts[1:]:
        busy = busy.union(more_than(part, most_clicks)).distinct()
    busy = settle(busy)
    return None if busy.isEmpty() else busy


@dataclass(frozen=True)
class Gathered:
    """Sessions, and what became of the clicks that single rules did not take out.

    Attributes:
        sessions: columns of `clicks.sessions_of`; computed.
        by_rule: clicks by the rule of doubles and sessions that takes them out, and those of `rules.KNOWN`.
        warned: clicks that were taken although they break a rule.
        owners: owner, of those with a click that doubles' and sessions' rules put aside; None: nobody.
    """

    sessions: DataFrame
    by_rule: Mapping[str, int]
    warned: Mapping[str, int]
    owners: DataFrame | None


def gather(
    rows: DataFrame,
    old: DataFrame | None,
    found: Judgement,
    form: Form,
    severity: Mapping[str, Severity],
    cutting: Cutting,
    row_level: bool = False,
) -> Gathered:
    """Sessions of judged clicks.

    Args:
        rows: of `clicks.judged`.
        old: clicks of nights before of the owners that are in `rows`; None: there are none.
        found: of `judgement`.
        form: of the source.
        severity: of every rule.
        cutting: what is a session.
        row_level: whether all go row by row, which is slower and gives the same.

    Returns:
        The sessions, computed. Cost: one shuffle of the clicks by owner; two of those that go row by row.
    """
    nights = old is not None
    good = _good(rows, old, form)
    told = [name for name in _OF_SESSIONS if severity[name] in ("quarantine", "fail")]
    by_rule: Counter[str] = Counter()
    warned: Counter[str] = Counter()
    parts: list[DataFrame] = []
    troubled: list[DataFrame] = []
    slow: DataFrame | None = good
    if not row_level:
        busy = _busy(good, old, found, cutting.most_clicks)
        slow = None
        if busy is not None:
            slow = good.join(busy, "owner", "left_semi")
            good = good.join(busy, "owner", "left_anti")
        # What is the same of all clicks does not go through the shuffle.
        few = good if nights else good.drop("night")
        with _sorted_groups(good.sparkSession):
            # Not persisted: as columns the rows would take a fifth more time to write and to read.
            whole = settle(gathered(few, form, severity, cutting, nights))
        _count_whole(whole, severity, by_rule, warned)
        parts.append(whole.where(F.size("items") > 0).drop("doubles", "known", "rule", *OF_SESSIONS))
        doubled = (F.col("doubles") > 0) & F.lit("duplicate" in told)
        troubled.append(whole.where(F.col("rule").isin(told) | doubled).select("owner"))
    if slow is not None:
        single = settle(row_by_row(slow, form, severity, cutting, nights))
        _count_single(single, by_rule, warned)
        with _sorted_groups(single.sparkSession):
            parts.append(settle(sessions_of(single, form, nights)))
        troubled.append(single.where(F.col("rule").isin(told)).select("owner"))
    sessions, owners = parts[0], troubled[0]
    for more, others in zip(parts[1:], troubled[1:], strict=True):
        sessions, owners = sessions.unionByName(more), owners.union(others)
    some = any(by_rule[name] for name in told)
    return Gathered(
        sessions,
        {name: n for name, n in by_rule.items() if n},
        {name: n for name, n in warned.items() if n},
        owners.distinct() if some else None,
    )


@contextmanager
def _sorted_groups(spark: SparkSession) -> Iterator[None]:
    """Within it, Spark collects lists of one group after the other, sorted, not of many in a hash table.

    What is in memory is then one owner's clicks, and a tenth of the time is spared.
    """
    before = spark.conf.get(_HASHED, None)
    spark.conf.set(_HASHED, "false")
    try:
        yield
    finally:
        if before is None:
            spark.conf.unset(_HASHED)
        else:
            spark.conf.set(_HASHED, before)


def _good(rows: DataFrame, old: DataFrame | None, form: Form) -> DataFrame:
    """Clicks without what only the quarantine needs, and without places where a row is a click."""
    drop = ["file", "at", "record", "readable", "utf8", "session", "user"]
    if form.rows == "clicks" and form.events is None:
        drop.append("place")
    good = rows.where(F.isnull("rule")).drop(*drop)
    old = None if old is None else old.drop(*drop)
    return good if old is None else with_turns(good.unionByName(old, allowMissingColumns=True), form)


def _count_whole(
    whole: DataFrame, severity: Mapping[str, Severity], by_rule: Counter[str], warned: Counter[str]
) -> None:
    """Add what became of clicks that went through arrays."""
    names = ("doubles", "known", *OF_SESSIONS)
    for row in whole.groupBy("rule").agg(*[F.sum(name).alias(name) for name in names]).collect():
        out = row["rule"]
        by_rule[KNOWN] += int(row["known"])
        if severity["duplicate"] != "warn":
            by_rule["duplicate"] += int(row["doubles"])
        elif out is None:
            warned["duplicate"] += int(row["doubles"])
        if out is not None:
            by_rule[out] += int(row[out])
            continue
        for name in OF_SESSIONS:
            warned[name] += int(row[name])


def _count_single(single: DataFrame, by_rule: Counter[str], warned: Counter[str]) -> None:
    """Add what became of clicks that went row by row."""
    new = single.where(F.col("night") == 1)
    for row in new.groupBy("rule", "warns").count().collect():
        if row["rule"] is not None:
            by_rule[row["rule"]] += int(row["count"])
            continue
        for name in row["warns"]:
            warned[name] += int(row["count"])


def warned_clicks(sessions: DataFrame, severity: Mapping[str, Severity]) -> dict[str, int]:
    """Clicks of sessions that break a rule of single clicks which only warns."""
    names = warned_rules(severity)
    if not names:
        return {}
    sums = [
        F.sum(F.size(F.filter("warns", lambda x: x.bitwiseAND(1 << bit) > 0))).alias(name)  # noqa: B023
        for bit, name in enumerate(names)
    ]
    row = sessions.agg(*sums).first()
    assert row is not None  # an aggregate without keys has one row
    return {name: int(row[name]) for name in names if row[name]}


def set_aside(
    rows: DataFrame,
    old: DataFrame | None,
    done: Gathered,
    form: Form,
    severity: Mapping[str, Severity],
    cutting: Cutting,
    rules: list[str],
) -> DataFrame:
    """Clicks that some rules took out, with their records.

    Args:
        rows: of `clicks.judged`.
        old: as in `gather`.
        done: of `gather`.
        form: of the source.
        severity: of every rule.
        cutting: what is a session.
        rules: by name.

    Returns:
        file, at, seq, place, record, utf8, rule. Cost: a pass; where doubles or sessions are among them, a
        shuffle of those owners' clicks.
    """
    columns = ("file", "at", "seq", "place", "record", "utf8", "rule")
    single = [rule for rule in rules if rule not in _OF_SESSIONS]
    out = rows.where(F.col("rule").isin(single)).select(*columns)
    if done.owners is None or not any(done.by_rule.get(rule) for rule in rules):
        return out
    theirs = rows.where(F.isnull("rule"))
    if old is not None:
        theirs = with_turns(theirs.unionByName(old, allowMissingColumns=True), form)
    theirs = theirs.join(done.owners, "owner", "left_semi")
    again = row_by_row(theirs, form, severity, cutting, old is not None)
    return out.unionByName(again.where(F.col("rule").isin(rules)).select(*columns))
