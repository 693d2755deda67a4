"""Two views beside the tables, which make the commonest questions one line of SQL.

`<output>_summary` has a row for each reason, `<output>_item_coverage` a row for each item. Both are of the
newest run, the only one that the tables below them hold. Where the output is a name they are views of its
schema; where it is a folder there is no catalog to keep them in, and `create_views` makes temporary ones.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pyspark.sql import SparkSession

from prune_lib.delta import identifier
from prune_lib.errors import OutputError, SettingsError, UserError
from prune_lib.locations import VIEWS, View, companion, is_location, last_part
from prune_lib.lookup import Tables, opened_as
from prune_lib.schemas import REASONS
from prune_lib.sessions.columns import Layout, quoted
from prune_lib.wording import first_line

__all__ = [
    "VIEW_COLUMNS",
    "VIEW_COMMENTS",
    "Sources",
    "create_views",
    "view_names",
    "view_select",
    "view_trouble",
]

_LOG = logging.getLogger(__name__)

# The property by which a view of ours is known: anything else of that name is left alone.
_MARK = "prune_lib.view"

# Metastores keep at most 256 characters of a column's comment.
VIEW_COLUMNS: Mapping[View, Mapping[str, str]] = {
    "summary": {
        "reason": "Why sessions were kept or pruned",
        "kept": "Whether they are in the pruned table",
        "sessions": "Sessions with this reason; samples where samples were chosen",
        "share": "Their share of all sessions, in [0, 1]",
        "interactions": "Their interactions; a sample counts as one",
        "interaction_share": "Their share of all interactions, in [0, 1]",
        "mean_length": "Mean number of their interactions; of a sample, its clicks and its target",
        "mean_difficulty": "Mean difficulty rank, in (0, 1), higher = harder; NULL where there is none",
        "meaning": "What the reason means",
        "run_id": "Run that decided; see the runs table",
    },
    "item_coverage": {
        "item": "Item id, as in the input",
        "band": "Popularity of the item in the input: cold, mid or popular",
        "sessions_before": "Sessions of the input that hold the item; samples that predict it",
        "sessions_after": "Kept sessions that hold the item; kept samples that predict it",
        "share_kept": "sessions_after / sessions_before, in [0, 1]; NULL where there are none",
        "weighted_sessions": "Estimate of sessions_before from the kept rows alone: the sum of their "
        "prune_weight; 0 where none is kept",
        "interactions_before": "Interactions of the input with the item",
        "interactions_after": "Kept interactions with the item",
        "first_rank": "prune_rank of the earliest chosen session that holds the item, which a smaller budget "
        "that ends before it lacks; NULL where none is kept",
        "first_kept_session": "Id of the session of first_rank",
        "mean_difficulty": "Mean difficulty rank of the item's sessions, in (0, 1), higher = harder",
        "run_id": "Run that decided; see the runs table",
    },
}
VIEW_COMMENTS: Mapping[View, str] = {
    "summary": "One row for every reason of the newest pruning run: sessions, interactions, difficulty",
    "item_coverage": "One row for every item of the input: what the newest pruning run kept of it",
}


@dataclass(frozen=True)
class Sources:
    """What the views read; tables as SQL writes them.

    Attributes:
        pruned: the pruned table.
        decisions: its decisions.
        items: its items.
        item_column: the pruned table's column of items, as it is called.
        holds: what a row of the pruned table is of: a click (events), a session, or a part of a sample.
    """

    pruned: str
    decisions: str
    items: str
    item_column: str
    holds: Layout | Literal["samples"]


def view_select(view: View, sources: Sources) -> str:
    """The query of a view, with the columns of `VIEW_COLUMNS` in their order.

    Args:
        view: which of the views.
        sources: the tables that it reads.

    Returns:
        One SELECT. Cost of reading it: `summary` one pass over the decisions; `item_coverage` the items, and
        where `weighted_sessions` or `first_rank` is asked for, one pass over the kept rows.
    """
    return _summary(sources) if view == "summary" else _item_coverage(sources)


def _summary(sources: Sources) -> str:
    # As in the runs table: a sample counts as one interaction.
    clicks = "count(*)" if sources.holds == "samples" else "sum(interactions)"
    meanings = "\n".join(
        f"    WHEN '{reason}' THEN {_text(text.split(': ', 1)[1])}" for reason, text in REASONS.items()
    )
    return f"""SELECT
  reason,
  kept,
  count(*) AS sessions,
  round(count(*) / sum(count(*)) OVER (), 6) AS share,
  {clicks} AS interactions,
  round({clicks} / sum({clicks}) OVER (), 6) AS interaction_share,
  round(avg(interactions), 6) AS mean_length,
  round(avg(difficulty), 6) AS mean_difficulty,
  CASE reason
{meanings}
  END AS meaning,
  run_id
FROM {sources.decisions}
GROUP BY reason, kept, run_id
ORDER BY kept DESC, sessions DESC, reason"""


def _item_coverage(sources: Sources) -> str:
    return f"""SELECT
  i.item,
  i.band,
  i.sessions_before,
  i.sessions_after,
  i.share_kept,
  coalesce(k.weighted_sessions, 0D) AS weighted_sessions,
  i.interactions_before,
  i.interactions_after,
  k.first_rank,
  i.first_kept_session,
  i.mean_difficulty,
  i.run_id
FROM {sources.items} AS i
LEFT JOIN (
  SELECT item, round(sum(prune_weight), 6) AS weighted_sessions, min(prune_rank) AS first_rank
  FROM ({_kept_items(sources)})
  GROUP BY item
) AS k ON i.item = k.item"""


def _kept_items(sources: Sources) -> str:
    """Every kept session with each of its items once: item, prune_rank, prune_weight."""
    column = quoted(sources.item_column)
    if sources.holds == "sessions":
        return (
            f"SELECT explode(array_distinct({column})) AS item, prune_rank, prune_weight "
            f"FROM {sources.pruned}"
        )
    if sources.holds == "events":
        return f"SELECT DISTINCT {column} AS item, prune_rank, prune_weight FROM {sources.pruned}"
    return (
        f"SELECT d.target AS item, p.prune_rank, p.prune_weight FROM {sources.decisions} AS d "
        f"JOIN (SELECT DISTINCT prune_rank, prune_weight FROM {sources.pruned}) AS p ON d.rank = p.prune_rank"
    )


def view_names(output: str, name: str | None = None) -> dict[View, str]:
    """The views of an output: in its schema, or temporary ones called after its folder.

    >>> view_names("main.shop.pruned")["summary"], view_names("/data/my clicks/")["item_coverage"]
    ('main.shop.pruned_summary', 'my_clicks_item_coverage')
    >>> view_names("/data/my clicks/", "spring")["summary"]
    'spring_summary'
    """
    if not is_location(output):
        return {view: companion(output, view) for view in VIEWS}
    # What SQL takes without backquotes.
    stem = name or re.sub(r"\W+", "_", last_part(output), flags=re.ASCII)
    return {view: f"{stem}_{view}" for view in VIEWS}


def create_views(spark: SparkSession, output: str, *, name: str | None = None) -> list[str]:
    """Make the views `<output>_summary` and `<output>_item_coverage`, or replace those of an earlier run.

    Where the output is a name, they are views of its schema, and `prune` makes them by itself. Where it is a
    location they are temporary views of this session, called after its last folder: `/data/clicks_pruned` has
    `clicks_pruned_summary` and `clicks_pruned_item_coverage`. Of two folders that are called the same the
    later has them; `name` tells them apart.

    Args:
        spark: the session.
        output: the pruned table, a name or a location.
        name: what temporary views are called in the place of the folder: letters, digits and underscores.

    Returns:
        The names of the views. Nothing is computed.

    Raises:
        SettingsError: `name` is none that SQL takes, or the output is a name, which has views of its own.
        InputError: there is no such table, or its companions are missing.
        OutputError: a table or a view that is not ours has one of the names; it is left as it is.
        Exception: whatever Spark raises where views cannot be made. There are both views or neither then: one
            that an earlier run made might read the new tables wrongly.
    """
    if name is not None and (not is_location(output) or not re.fullmatch(r"\w+", name, re.ASCII)):
        raise SettingsError(
            "`name` is of temporary views, beside tables in a folder: letters, digits and underscores; got "
            f"{name!r} for {output}."
        )
    sources = _sources(spark, output)
    names = view_names(output, name)
    lasting = not is_location(output)
    try:
        for view, called in names.items():
            if _what_is_there(spark, view, called, lasting) == "foreign":
                raise OutputError(
                    f"The name {called} is taken by a table or view that no pruning run made, and that "
                    "stays. Rename it, or give another --output."
                )
        for view, called in names.items():
            spark.sql(_statement(view, called, sources, lasting))
    except Exception:
        for view, called in names.items():
            _drop(spark, view, called, lasting)
        raise
    return list(names.values())


def view_trouble(spark: SparkSession, output: str) -> str | None:
    """Make the views of a run in a catalog; a warning in words where that fails, which ends no run.

    Args:
        spark: the session.
        output: the pruned table; nothing is done where it is a location.
    """
    if is_location(output):
        return None
    try:
        create_views(spark, output)
    except Exception as problem:
        names = " and ".join(view_names(output).values())
        return (
            f"the tables are written, the views {names} are not (prune_lib.create_views makes them later): "
            f"{_words(problem)}"
        )
    return None


def _sources(spark: SparkSession, output: str) -> Sources:
    tables = Tables(spark, output, {})
    decisions = tables.companion("decisions")
    row = decisions.select("run_id").first()
    if row is None:
        raise OutputError(f"The table {companion(output, 'decisions')} is empty: prune again.")
    _, settings = tables.run(row["run_id"])
    table = opened_as(spark, output, settings, None)
    return Sources(
        pruned=identifier(spark, output),
        decisions=identifier(spark, companion(output, "decisions")),
        items=identifier(spark, companion(output, "items")),
        item_column=table.item_column,
        holds="samples" if "target" in decisions.columns else table.layout,
    )


def _statement(view: View, name: str, sources: Sources, lasting: bool) -> str:
    columns = ",\n".join(
        f"  {column} COMMENT {_text(comment)}" for column, comment in VIEW_COLUMNS[view].items()
    )
    return (
        f"CREATE OR REPLACE {'' if lasting else 'TEMPORARY '}VIEW {name} (\n{columns}\n)\n"
        f"COMMENT {_text(VIEW_COMMENTS[view])}\n"
        # A temporary view has no properties.
        + (f"TBLPROPERTIES ('{_MARK}' = '{view}')\n" if lasting else "")
        + f"AS {view_select(view, sources)}"
    )


def _text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _what_is_there(
    spark: SparkSession, view: View, name: str, lasting: bool
) -> Literal["nothing", "ours", "foreign"]:
    if lasting:
        if not spark.catalog.tableExists(name):
            return "nothing"
        properties = spark.sql(f"SHOW TBLPROPERTIES {name}").collect()
        return "ours" if any(row["key"] == _MARK for row in properties) else "foreign"
    found = spark.catalog.listTables(pattern=name)
    if not any(table.isTemporary and table.name.lower() == name.lower() for table in found):
        return "nothing"
    # Temporary views have no properties; nobody else names columns so.
    return "ours" if spark.table(name).columns == list(VIEW_COLUMNS[view]) else "foreign"


def _drop(spark: SparkSession, view: View, name: str, lasting: bool) -> None:
    """Remove a view of ours, if there is one; trouble is logged, so that the first failure is raised."""
    try:
        if _what_is_there(spark, view, name, lasting) != "ours":
            return
        if lasting:
            spark.sql(f"DROP VIEW {name}")
        else:
            spark.catalog.dropTempView(name)
    except Exception as problem:
        _LOG.error("the view %s could not be removed: %s", name, _words(problem))


def _words(problem: Exception) -> str:
    if isinstance(problem, UserError) or not str(problem).strip():
        return str(problem) or type(problem).__name__
    return first_line(problem)
