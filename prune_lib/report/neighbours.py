"""One session among its neighbours: its items, and the kept sessions that hold them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pyspark.sql import functions as F

from prune_lib.lookup import SamplesFacts, Tables, opened_as, session_facts
from prune_lib.report.facts import Entry, Facts, Neighbourhood
from prune_lib.sessions.columns import column_of
from prune_lib.sessions.reading import to_sessions

__all__ = ["example_session", "look_around"]

#: Items and kept sessions drawn, at most.
_MOST = 12
#: Clicks of the session that is drawn where none is named: enough to show something, and room for it.
_FEW, _MANY = 4, 10


def example_session(tables: Tables) -> tuple[str | None, int | None]:
    """A session worth a picture: a covered one that shares much with the session that stands for it.

    Args:
        tables: the run's.

    Returns:
        Its id as text, None where none was pruned for another; and of a sample its length. Cost: one pass
        over the decisions.
    """
    decisions = tables.companion("decisions")
    row = (
        decisions.filter(F.col("covered_by").isNotNull() & F.col("interactions").between(_FEW, _MANY))
        .orderBy(
            (F.col("reason") == "COVERED").desc(),
            F.size("shared_items").desc(),
            F.xxhash64(F.col("session_id").cast("string")),
            *(["length"] if "length" in decisions.columns else []),
        )
        .select("session_id", *(["length"] if "length" in decisions.columns else []))
        .first()
    )
    if row is None:
        return None, None
    return str(row["session_id"]), row.asDict().get("length")


def look_around(
    tables: Tables, facts: Facts, session: str, length: int | None = None
) -> Neighbourhood | None:
    """The neighbourhood of a session.

    Args:
        tables: the run's.
        facts: the run.
        session: its id as text.
        length: of one of its samples; None: the longest, where samples were chosen.

    Returns:
        The picture; None where its clicks cannot be read any more. Cost: a pass over the kept sessions.

    Raises:
        InputError: there is no such session.
    """
    found = session_facts(tables.spark, tables.output, session, length, tables.versions)
    if isinstance(found, SamplesFacts):  # the longest sample is the whole session
        longest = int(found.decisions[-1]["length"])
        found = session_facts(tables.spark, tables.output, session, longest, tables.versions)
        assert not isinstance(found, SamplesFacts)
    if found.clicks is None:
        return None
    distinct = list(dict.fromkeys(found.clicks))
    drawn = distinct[:_MOST]
    items = tables.companion("items").filter(F.col("item").isin(drawn)).collect()
    by_item = {row["item"]: row for row in items}
    return Neighbourhood(
        session=str(found.decision["session_id"]),
        reason=str(found.decision["reason"]),
        clicks=[str(item) for item in found.clicks],
        items=[
            Entry(
                str(item),
                str(item),
                f"item {item}: in {by_item[item]['sessions_before']:,} sessions before, in "
                f"{by_item[item]['sessions_after']:,} of the kept ({by_item[item]['band']})",
            )
            for item in drawn
            if item in by_item
        ],
        kept=_kept(tables, facts, found.decision, drawn),
        left_out=len(distinct) - len(drawn),
    )


def _kept(tables: Tables, facts: Facts, decision: Mapping[str, Any], drawn: list[Any]) -> list[Entry]:
    """Kept sessions that hold the items: the one that stands for it, then by shared items and rank."""
    table = opened_as(tables.spark, tables.output, facts.settings, tables.versions.get("pruned"))
    ranks = table.df.select(
        column_of(table.session_column).alias("session_id"), F.col("prune_rank").alias("rank")
    )
    best = ranks.groupBy("session_id").agg(F.min("rank").alias("rank"))
    shared = F.array_intersect("items", F.array(*(F.lit(item) for item in drawn)))
    covers = F.col("session_id").eqNullSafe(F.lit(decision["covered_by"]))
    holding = (
        to_sessions(table)
        .filter(F.col("session_id") != F.lit(decision["session_id"]))
        .select("session_id", shared.alias("shared"))
        .filter(F.size("shared") > 0)
    )
    if facts.samples:  # there may be many of a session
        together = F.array_distinct(F.flatten(F.collect_list("shared")))
        holding = holding.groupBy("session_id").agg(F.array_sort(together).alias("shared"))
    rows = (
        holding.join(best, "session_id")
        .orderBy(covers.desc(), F.size("shared").desc(), "rank")
        .limit(_MOST)
        .collect()
    )
    return [
        Entry(
            str(row["session_id"]),
            str(row["session_id"]),
            f"kept session {row['session_id']}, rank {row['rank']:,}: shares "
            + ", ".join(str(item) for item in row["shared"]),
            tuple(str(item) for item in row["shared"]),
            is_cover=row["session_id"] == decision["covered_by"],
        )
        for row in rows
    ]
