"""Checking an input: every mistake that its rows hold, counted and told in one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, StringType

from prune_lib.errors import InputError
from prune_lib.sessions.columns import EXAMPLES, InputTable, column_of, quoted
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.shaping import as_time, ordering_of, time_element, unit_hint
from prune_lib.wording import short

__all__ = ["SessionStats", "check_sessions"]

# Of the pairs of neighbouring clicks.
_MOST = 0.5


@dataclass(frozen=True)
class SessionStats:
    """Size of an input.

    Attributes:
        n_sessions: sessions.
        n_interactions: clicks.
        n_items: distinct items.
        tied: neighbouring clicks of events that nothing but their items puts in an order.
        shortest: clicks of the shortest session.
    """

    n_sessions: int
    n_interactions: int
    n_items: int
    tied: int = 0
    shortest: int = field(default=1, compare=False)

    def guessed(self, table: InputTable) -> str | None:
        """A warning where the order of most clicks is that of their items, which says nothing."""
        pairs = self.n_interactions - self.n_sessions
        if self.tied <= _MOST * pairs:
            return None
        keys = [name for name in (table.time_column, table.order_column) if name is not None]
        return (
            f"{100 * self.tied / pairs:.0f} % of neighbouring clicks have the same {' and '.join(keys)} and "
            "different items: which came first is not known, and they stand in the order of their items. "
            "Name a column that grows from click to click by --order-column, or each click's own time by "
            "--time-column."
        )


@dataclass(frozen=True)
class _Fault:
    """A thing that rows can have wrong.

    `bad` is true for a wrong row; `show` are the columns of its examples; `text` says what is wrong
    with so many rows, their number goes before it; `mend` what to do.
    """

    name: str
    bad: Column
    show: Sequence[str]
    text: str
    mend: str


def check_sessions(
    table: InputTable, sessions: DataFrame, warn: Callable[[str], None] | None = None
) -> SessionStats:
    """See that every row can be pruned, and count.

    Args:
        table: the input.
        sessions: what `settled_sessions` or `to_sessions` made of it; `tied` is counted where it is there.
        warn: is told where the order of most clicks is a guess, and where no session is newer than another.

    Returns:
        Numbers of sessions, interactions and items. Cost: a pass over the input and one over the sessions,
        each with one shuffle of what is distinct; up to three rows more for each kind of mistake.

    Raises:
        InputError: no rows; null ids, items, times or orders; empty sessions; a session id twice;
            one session, one item, or nothing but sessions of one click. All that is wrong,
            together.
    """
    with reading_errors(table.location):
        faults = _faults(table)
        counts = _counts(table, faults)
        if counts["rows"] == 0:
            raise InputError(f"The table {table.location} is empty. Give one with sessions in it by --input.")
        found = [_told(table, fault, int(counts[fault.name])) for fault in faults if counts[fault.name]]
        if counts["repeated"]:
            found.append(_repeated(table, int(counts["repeated"])))
        stats = SessionStats(
            int(counts["sessions"]),
            int(counts["clicks"] or 0),
            *_items_and_ties(sessions),
            shortest=int(counts["shortest"] or 0),
        )
    with reading_errors(table.location):
        found += _order_of_text(table)
    found += _too_little(stats, int(counts["longest"] or 0))
    if found:
        problems = found[0] if len(found) == 1 else _numbered(found)
        raise InputError(f"The table {table.location} cannot be pruned as it is: {problems}")
    if warn is not None:
        keys = [name for name in (table.time_column, table.order_column) if name is not None]
        if keys and "ordering" not in sessions.columns:
            warn(
                f"all sessions have the same {' and '.join(keys)}: none is newer than another, and the input "
                "is taken for one without times"
            )
        guessed = stats.guessed(table)
        if guessed:
            warn(guessed)
    return stats


def _faults(table: InputTable) -> list[_Fault]:
    session, item = column_of(table.session_column), column_of(table.item_column)
    s, i = quoted(table.session_column), quoted(table.item_column)
    faults = [
        _Fault(
            "no_session",
            session.isNull(),
            [table.item_column],
            f"rows have no session id ({s} is null)",
            f"leave them out with WHERE {s} IS NOT NULL",
        )
    ]
    if table.layout == "events":
        faults.append(
            _Fault(
                "no_item",
                item.isNull(),
                [table.session_column],
                f"rows have no item ({i} is null)",
                f"leave them out with WHERE {i} IS NOT NULL",
            )
        )
    else:
        faults += [
            _Fault(
                "no_item",
                item.isNull(),
                [table.session_column],
                f"sessions have no array of items ({i} is null)",
                f"leave them out with WHERE {i} IS NOT NULL",
            ),
            _Fault(
                "empty",
                F.size(item) == 0,
                [table.session_column],
                f"sessions are empty ({i} has no element)",
                f"leave them out with WHERE size({i}) > 0",
            ),
            _Fault(
                "null_inside",
                F.exists(item, lambda x: x.isNull()),
                [table.session_column],
                f"sessions have null items inside {i}",
                f"take the nulls out with filter({i}, x -> x IS NOT NULL)",
            ),
        ]
    for name, where, within in (
        ("session_utf8", table.session_column, False),
        ("item_utf8", table.item_column, table.layout == "sessions"),
    ):
        if "string" in table.df.schema[where].dataType.simpleString():
            text = column_of(where)
            faults.append(
                _Fault(
                    name,
                    F.exists(text, _not_utf8) if within else _not_utf8(text),
                    [table.session_column],
                    f"rows have text that is not UTF-8 ({quoted(where)})",
                    "write it as UTF-8 (decode() with the charset it is in, ISO-8859-1 most often)",
                )
            )
    if table.time_column is not None:
        t, at = quoted(table.time_column), ordering_of(table)
        assert at is not None
        cast = unit_hint(table) or f"cast {t} to TIMESTAMP"
        faults.append(
            _Fault(
                "no_time",
                at.isNull(),
                [table.session_column, table.time_column],
                f"rows have no time, or one that cannot be read ({t})",
                f"leave them out with WHERE {t} IS NOT NULL, {cast}, or name another column by --time-column",
            )
        )
        if table.layout == "sessions" and isinstance(table.df.schema[table.time_column].dataType, ArrayType):
            times = column_of(table.time_column)
            broken = times.isNotNull() & item.isNotNull() & (F.size(times) != F.size(item))
            ticks = F.transform(times, lambda x: as_time(x, time_element(table)))
            known = F.filter(ticks, lambda x: x.isNotNull())
            faults += [
                _Fault(
                    "times_and_items",
                    broken,
                    [table.session_column],
                    f"sessions have more times than items, or fewer ({t} and {i})",
                    f"leave them out with WHERE size({t}) = size({i}), or name an --order-column",
                ),
                _Fault(
                    "times_unsorted",
                    (F.size(known) < F.size(times)) | (F.sort_array(known) != known),
                    [table.session_column],
                    f"sessions are not in the order of their times, or have null times ({t})",
                    f"sort {i} by {t} first, or rank sessions by --order-column",
                ),
            ]
    if table.order_column is not None and table.order_column != table.session_column:
        o = quoted(table.order_column)
        faults.append(
            _Fault(
                "no_order",
                column_of(table.order_column).isNull(),
                [table.session_column],
                f"rows have no order ({o} is null)",
                f"leave them out with WHERE {o} IS NOT NULL, or name another column by --order-column",
            )
        )
    return faults


def _counts(table: InputTable, faults: Sequence[_Fault]) -> Mapping[str, Any]:
    """All counts of the rows in one pass: by session first, then in all."""
    item = column_of(table.item_column)
    clicks = F.lit(1) if table.layout == "events" else F.greatest(F.size(item), F.lit(0))
    flags = [F.coalesce(f.bad, F.lit(False)).cast("bigint").alias(f.name) for f in faults]
    per_session = (
        table.df.select(
            column_of(table.session_column).alias("session_id"),
            clicks.cast("bigint").alias("clicks"),
            *flags,
        )
        .groupBy("session_id")
        .agg(
            F.count(F.lit(1)).alias("rows"),
            F.sum("clicks").alias("clicks"),
            *[F.sum(f.name).alias(f.name) for f in faults],
        )
    )
    known = F.col("session_id").isNotNull()
    twice = known & (F.col("rows") > 1) & F.lit(table.layout == "sessions")
    row = per_session.agg(
        F.coalesce(F.sum("rows"), F.lit(0)).alias("rows"),
        F.count("session_id").alias("sessions"),
        F.sum(F.when(known, F.col("clicks"))).alias("clicks"),
        F.max(F.when(known, F.col("clicks"))).alias("longest"),
        F.min(F.when(known, F.col("clicks"))).alias("shortest"),
        F.count(F.when(twice, F.lit(1))).alias("repeated"),
        *[F.sum(f.name).alias(f.name) for f in faults],
    ).first()
    assert row is not None  # an aggregate without keys has one row
    counts: dict[str, Any] = row.asDict()
    return counts


def _items_and_ties(sessions: DataFrame) -> tuple[int, int]:
    """Distinct items, and neighbouring clicks that tie, in one pass."""
    known = F.col("tied") if "tied" in sessions.columns else F.lit(0)
    clicks = sessions.select(F.posexplode("items").alias("place", "item"), known.alias("tied"))
    tied = F.sum(F.when(F.col("place") == 0, F.col("tied")).cast("bigint"))
    row = clicks.groupBy("item").agg(tied.alias("tied")).agg(F.count("item"), F.sum("tied")).first()
    assert row is not None  # an aggregate without keys has one row
    return int(row[0]), int(row[1] or 0)


def _told(table: InputTable, fault: _Fault, n: int) -> str:
    """A fault with its number, some examples and what to do."""
    rows = table.df.where(fault.bad).select(
        *[column_of(name).cast("string").alias(f"c{i}") for i, name in enumerate(fault.show)]
    )
    # The smallest ones: the message does not change from run to run.
    examples = rows.orderBy(*rows.columns).limit(EXAMPLES).collect()
    shown = "; ".join(
        ", ".join(f"{name} {short(value)}" for name, value in zip(fault.show, row, strict=True))
        for row in examples
    )
    what = _counted(f"{n} {fault.text}")
    return f"{what}, for example {shown}: {fault.mend}."


def _repeated(table: InputTable, n: int) -> str:
    session = quoted(table.session_column)
    examples = (
        table.df.where(column_of(table.session_column).isNotNull())
        .groupBy(column_of(table.session_column).cast("string").alias("id"))
        .agg(F.count(F.lit(1)).alias("rows"))
        .where("rows > 1")
        .orderBy(F.desc("rows"), "id")
        .limit(EXAMPLES)
        .collect()
    )
    shown = ", ".join(f"{short(row['id'])} ({row['rows']} rows)" for row in examples)
    what = _counted(f"{n} session ids are there more than once")
    return (
        f"{what}, for example {shown}: keep one row for each with dropDuplicates, or make {session} unique; "
        "where a row is a click, name the item's own column by --item-column."
    )


def _order_of_text(table: InputTable) -> list[str]:
    """Numbers written as text do not sort as numbers: '10' would come before '9'."""
    name = table.order_column
    if name is None or not isinstance(table.df.schema[name].dataType, StringType):
        return []
    digits = F.length(F.regexp_extract(column_of(name), r"^\D*(\d+)$", 1))
    seen = (
        table.df.where(digits > 0)
        .agg(F.min(digits).alias("least"), F.max(digits).alias("most"), F.max(column_of(name)).alias("last"))
        .first()
    )
    if seen is None or seen["least"] == seen["most"]:
        return []
    return [
        f"{quoted(name)} ranks by text, and its numbers have {seen['least']} to {seen['most']} digits: as "
        f"text '10' comes before '9', and the newest would be {short(seen['last'])}. Cast it to BIGINT, or "
        "fill its numbers up with zeros."
    ]


def _not_utf8(column: Column) -> Column:
    """Whether a text's bytes are no UTF-8 (Latin-1, most often): Arrow, and so Python, cannot carry it."""
    raw = column.cast("binary")
    return raw != F.encode(F.decode(raw, "UTF-8"), "UTF-8")


def _too_little(stats: SessionStats, longest: int) -> list[str]:
    found = []
    if stats.n_sessions == 1:
        found.append("it has one session only: pruning chooses among at least two.")
    if stats.n_items == 1:
        found.append("all its clicks are on one item: see whether --item-column names the item's column.")
    if longest == 1:
        found.append(
            f"all its {stats.n_sessions} sessions have one click, so there is no next item to "
            "learn from: see whether --session-column names the session's column, and keep "
            "sessions of two clicks or more."
        )
    return found


def _numbered(texts: Sequence[str]) -> str:
    return " ".join(f"({i}) {text}" for i, text in enumerate(texts, 1))


def _counted(text: str) -> str:
    """'1 row has' for '1 rows have'."""
    one = re.match(r"1 (row|session|session id)s (have|are) ", text)
    if one is None:
        return text
    verb = "has" if one[2] == "have" else "is"
    return f"1 {one[1]} {verb} {text[one.end() :]}"
