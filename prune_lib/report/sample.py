"""Some sessions with their clicks: a sample of all, and a few of every reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from prune_lib.experts.settings import EXPERTS
from prune_lib.lookup import Tables, from_input
from prune_lib.report.facts import Facts, Sample
from prune_lib.sessions.columns import InputTable, column_of
from prune_lib.sessions.reading import to_sessions

__all__ = ["clicks_of", "drawn", "examples"]

#: Seeds the hash that draws.
_SEED = "report"
# A column of its own beside the input's, whatever they are called.
_WANTED = "prune_report_wanted"


def drawn(tables: Tables, facts: Facts, most: int) -> Sample:
    """Draw by hash of the id: the same sessions whatever the partitions.

    Cost: a pass over the decisions that keeps the smallest `most` hashes of each partition, and a pass over
    the input with a broadcast join. `most` rows come to the driver.

    Args:
        tables: the run's.
        facts: the run.
        most: rows, at most.
    """
    decisions = tables.companion("decisions")
    by_hash = _hash(facts)
    gates = [f"gate_{kind}" for kind in EXPERTS]
    rows = (
        decisions.select(*_described(facts), *gates, by_hash.alias("hash"))
        .orderBy("hash", "session_id")
        .limit(most)
    )
    found: pd.DataFrame = rows.drop("hash").toPandas()
    return Sample(_with_clicks(tables, facts, decisions, found), decisions.count())


def examples(tables: Tables, facts: Facts, each: int) -> pd.DataFrame:
    """A few sessions of every reason, with the sessions that stand for them.

    Args:
        tables: the run's.
        facts: the run.
        each: sessions by reason.

    Returns:
        Columns of Sample.rows without the gates, and covered_by (as text), covered_by_length (of samples),
        cover_clicks (list of items). Cost: a window over the decisions by reason, a pass over the input.
    """
    decisions = tables.companion("decisions")
    by_hash = _hash(facts)
    # What many sessions share is what a reason looks like at its plainest; a session of one click tells
    # nothing.
    first = Window.partitionBy("reason").orderBy(F.least("interactions", F.lit(3)).desc(), by_hash)
    covers = [_text("covered_by"), *([F.col("covered_by_length")] if facts.samples else [])]
    chosen = decisions.select(*_described(facts), *covers, F.row_number().over(first).alias("place"))
    found: pd.DataFrame = chosen.filter(F.col("place") <= each).orderBy("reason", "place").toPandas()
    known = clicks_of(tables, facts, decisions, [*found["session_id"], *found["covered_by"].dropna()])
    out = _joined(found.drop(columns="place"), known)
    covering = [
        _cut(known, session, length)
        for session, length in zip(found["covered_by"], _lengths(found, "covered_by_length"), strict=True)
    ]
    whole: pd.DataFrame = out.assign(cover_clicks=pd.Series(covering, index=found.index, dtype=object))
    return whole


def clicks_of(
    tables: Tables, facts: Facts, decisions: DataFrame, sessions: list[str]
) -> Mapping[str, list[Any]] | None:
    """Items of sessions in order of time, by id as text; None where the input cannot be read any more.

    Args:
        tables: the run's.
        facts: the run.
        decisions: its decisions, whose type of ids is the input's.
        sessions: ids as text. They travel to every task.
    """
    kind = decisions.schema["session_id"].dataType.simpleString()
    texts = tables.spark.createDataFrame([(x,) for x in sorted(set(sessions))], f"`{_WANTED}` string")
    wanted = texts.select(F.col(_WANTED).cast(kind).alias(_WANTED))

    def read(table: InputTable) -> dict[str, list[Any]]:
        own = column_of(table.session_column) == F.col(_WANTED)
        rows = table.df.join(F.broadcast(wanted), own, "left_semi")
        return {
            row["session_id"]: list(row["items"])
            for row in to_sessions(replace(table, df=rows)).select(_text("session_id"), "items").collect()
        }

    return from_input(tables.spark, facts.run, facts.settings, read)


def _with_clicks(tables: Tables, facts: Facts, decisions: DataFrame, found: pd.DataFrame) -> pd.DataFrame:
    return _joined(found, clicks_of(tables, facts, decisions, list(found["session_id"])))


def _joined(found: pd.DataFrame, known: Mapping[str, list[Any]] | None) -> pd.DataFrame:
    clicks = [
        _cut(known, session, length)
        for session, length in zip(found["session_id"], _lengths(found, "length"), strict=True)
    ]
    out: pd.DataFrame = found.assign(clicks=pd.Series(clicks, index=found.index, dtype=object))
    return out


def _lengths(found: pd.DataFrame, column: str) -> list[Any]:
    return list(found[column]) if column in found else [None] * len(found)


def _cut(known: Mapping[str, list[Any]] | None, session: str | None, length: Any) -> list[Any] | None:
    """A session's clicks, up to a sample's target."""
    if known is None or session is None or session not in known:
        return None
    clicks = known[session]
    return clicks if _absent(length) else clicks[: int(length)]


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def _text(column: str) -> Column:
    """Ids as text: pandas makes floats of whole numbers among NULLs, which are not exact beyond 2^53."""
    return F.col(column).cast("string").alias(column)


def _described(facts: Facts) -> list[Column]:
    """Columns of the decisions that say what a session, or a sample, is and what became of it."""
    told = ["kept", "rank", "reason", "difficulty", "disagreement", "interactions"]
    names = ["length", *told] if facts.samples else told
    return [_text("session_id"), *(F.col(name) for name in names)]


def _hash(facts: Facts) -> Column:
    """By which sessions, or samples, are drawn."""
    length = [F.col("length")] if facts.samples else []
    return F.xxhash64(F.lit(_SEED), F.col("session_id").cast("string"), *length)
