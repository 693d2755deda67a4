"""What the tables of a run say of one session or one item; where they are still there, its clicks too."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import IntegralType

from prune_lib.errors import InputError
from prune_lib.locations import Companion, companion
from prune_lib.moments import with_zone
from prune_lib.sessions.columns import ColumnNames, InputTable, column_of
from prune_lib.sessions.opening import load_table, open_input
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.reading import to_sessions
from prune_lib.wording import short, shown

__all__ = [
    "ItemFacts",
    "SamplesFacts",
    "SessionFacts",
    "Tables",
    "Versions",
    "from_input",
    "item_facts",
    "opened_as",
    "session_facts",
]

_Found = TypeVar("_Found")

#: Delta versions by table: pruned, decisions, items, runs.
Versions = Mapping[str, int]


@dataclass(frozen=True)
class SessionFacts:
    """One session's decision, or one sample's.

    Attributes:
        decision: its row of the decisions table.
        run: the run's row of the runs table.
        weight: how many sessions (samples) it stands for; None where it was pruned.
        clicks: its items in order of time; None where the input cannot be read any more.
        settings: of the run.
    """

    decision: Mapping[str, Any]
    run: Mapping[str, Any]
    weight: float | None
    clicks: list[Any] | None
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SamplesFacts:
    """The decisions on the samples of a session.

    Attributes:
        decisions: their rows of the decisions table, the shortest first.
        run: the run's row of the runs table.
    """

    decisions: list[Mapping[str, Any]]
    run: Mapping[str, Any]


@dataclass(frozen=True)
class ItemFacts:
    """What became of an item.

    Attributes:
        item: its row of the items table.
        run: the run's row of the runs table.
        kept: prune_rank, session_id, prune_reason, prune_weight of kept sessions that hold it, by rank; of
            kept samples that predict it, with prune_length, where samples were chosen.
        reasons: sessions of the input that hold it (samples that predict it), by reason; None where the
            input cannot be read.
    """

    item: Mapping[str, Any]
    run: Mapping[str, Any]
    kept: list[Mapping[str, Any]]
    reasons: Mapping[str, int] | None


@dataclass(frozen=True)
class Tables:
    """The tables of an output, each at a version where one is given.

    Attributes:
        spark: the session.
        output: the pruned table.
        versions: of the tables, by kind; the newest where absent.
    """

    spark: SparkSession
    output: str
    versions: Versions

    def pruned(self) -> DataFrame:
        """The kept rows."""
        return load_table(self.spark, self.output, self.versions.get("pruned"))

    def companion(self, kind: Companion) -> DataFrame:
        """A companion of the pruned table.

        Raises:
            InputError: there is none.
        """
        try:
            return load_table(self.spark, companion(self.output, kind), self.versions.get(kind))
        except InputError as error:
            raise InputError(
                f"{str(error).replace('--input', '--output')} It is a companion of {self.output}: prune "
                "writes it, and --output names the pruned table."
            ) from error

    def run(self, run_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """A run's row of the runs table, and its settings.

        Raises:
            InputError: the runs table does not know it.
        """
        row = self.companion("runs").filter(F.col("run_id") == run_id).first()
        if row is None:
            raise InputError(
                f"The table {companion(self.output, 'runs')} does not know the run {run_id} that wrote the "
                "decisions: somebody has changed it. Prune again."
            )
        run = with_zone(row.asDict(recursive=True))
        return run, json.loads(run["settings"])


def session_facts(
    spark: SparkSession,
    output: str,
    session: str,
    length: int | None = None,
    versions: Versions | None = None,
) -> SessionFacts | SamplesFacts:
    """Look a session up, or one of its samples.

    Args:
        spark: the session.
        output: the pruned table.
        session: the id, as text.
        length: of the sample, where samples were chosen; all of them where it is absent.
        versions: of the tables, by kind (pruned, decisions, items, runs); the newest where absent.

    Raises:
        InputError: there is no such table, or no such session or sample in it.
    """
    tables = Tables(spark, output, versions or {})
    decisions = tables.companion("decisions")
    what = "session with samples" if "length" in decisions.columns else "session"
    wanted, decision = _one(decisions, "session_id", session, what, output)
    run, settings = tables.run(decision["run_id"])
    if "length" in decisions.columns:
        rows = decisions.filter(F.col("session_id") == F.lit(wanted)).orderBy("length").collect()
        samples = [row.asDict(recursive=True) for row in rows]
        if length is None:
            return SamplesFacts(list(samples), run)
        chosen = [row for row in samples if row["length"] == length]
        if not chosen:
            raise InputError(
                f"The session '{session}' has no sample of {length} clicks (--length): its samples have "
                f"{samples[0]['length']} to {samples[-1]['length']}."
            )
        decision = chosen[0]
    elif length is not None:
        raise InputError(
            f"The sessions of {output} were chosen as a whole, not by samples: leave --length out."
        )
    weight = None
    if decision["kept"]:
        # A rank is that of one session or sample.
        kept = tables.pruned().filter(F.col("prune_rank") == F.lit(decision["rank"]))
        row = kept.select("prune_weight").first()
        weight = None if row is None else float(row["prune_weight"])

    def own_clicks(table: InputTable) -> list[Any] | None:
        of_session = table.df.filter(column_of(table.session_column) == F.lit(wanted))
        row = to_sessions(replace(table, df=of_session)).first()
        return None if row is None else list(row["items"])[:length]

    clicks = from_input(spark, run, settings, own_clicks)
    # Of an input without versions the present rows are there, which may be others.
    wanted_clicks = decision["interactions"] if length is None else length
    if clicks is not None and len(clicks) != wanted_clicks:
        clicks = None
    return SessionFacts(decision, run, weight, clicks, settings)


def item_facts(
    spark: SparkSession, output: str, item: str, lines: int, versions: Versions | None = None
) -> ItemFacts:
    """Look an item up.

    Args:
        spark: the session.
        output: the pruned table.
        item: the id, as text.
        lines: kept sessions that are listed.
        versions: as for `session_facts`.

    Raises:
        InputError: there is no such table, or no such item in it.
    """
    tables = Tables(spark, output, versions or {})
    wanted, found = _one(tables.companion("items"), "item", item, "item", output)
    run, settings = tables.run(found["run_id"])
    decisions = tables.companion("decisions")
    if "target" in decisions.columns:
        return _predicted(tables, found, run, decisions.filter(F.col("target") == F.lit(wanted)), lines)
    kept = opened_as(spark, output, settings, tables.versions.get("pruned"))
    rows = (
        _holding(kept, wanted, ["prune_rank", "prune_reason", "prune_weight"])
        .orderBy("prune_rank")
        .limit(lines)
        .collect()
    )
    verdicts = decisions.select("session_id", "reason")

    def by_reason(table: InputTable) -> dict[str, int]:
        counted = _holding(table, wanted, []).join(verdicts, "session_id").groupBy("reason").count()
        return {row["reason"]: int(row["count"]) for row in counted.collect()}

    reasons = from_input(spark, run, settings, by_reason)
    if reasons is not None and sum(reasons.values()) != found["sessions_before"]:
        reasons = None  # the input has changed since
    return ItemFacts(found, run, [row.asDict() for row in rows], reasons)


def _predicted(
    tables: Tables,
    item: Mapping[str, Any],
    run: Mapping[str, Any],
    decisions: DataFrame,
    lines: int,
) -> ItemFacts:
    """What became of an item, from the decisions on the samples that predict it."""
    first = decisions.filter("kept").orderBy("rank").limit(lines)
    weights = tables.pruned().select("prune_rank", "prune_weight").distinct()
    rows = (
        first.select(
            F.col("rank").alias("prune_rank"),
            "session_id",
            F.col("length").alias("prune_length"),
            F.col("reason").alias("prune_reason"),
        )
        .join(weights, "prune_rank")
        .orderBy("prune_rank")
        .collect()
    )
    reasons = {row["reason"]: int(row["count"]) for row in decisions.groupBy("reason").count().collect()}
    return ItemFacts(item, run, [row.asDict() for row in rows], reasons)


def _holding(table: InputTable, item: Any, columns: list[str]) -> DataFrame:
    """Sessions of a table that hold an item: session_id and other columns, a row a session."""
    at = column_of(table.item_column)
    there = at == F.lit(item) if table.layout == "events" else F.array_contains(at, F.lit(item))
    session = column_of(table.session_column).alias("session_id")
    return table.df.filter(there).select(session, *columns).distinct()


def _one(table: DataFrame, column: str, text: str, what: str, output: str) -> tuple[Any, dict[str, Any]]:
    """An id in its column's type, and its row."""
    wanted: Any = text
    if isinstance(table.schema[column].dataType, IntegralType):
        # Python's own reading takes more: 1_0, blanks, other scripts' digits.
        if not re.fullmatch(r"-?[0-9]+", text.strip()):
            raise InputError(
                f"'{shown(text)}' is no id of a {what}: they are numbers here, such as "
                f"{_some(table, column)}."
            )
        wanted = int(text)
    # Spark's long numbers take no others, and no column of whole numbers holds them.
    beyond = isinstance(wanted, int) and not -(2**63) <= wanted < 2**63
    row = None if beyond else table.filter(F.col(column) == F.lit(wanted)).first()
    if row is None:
        raise InputError(
            f"The input of {output} has no {what} '{shown(text)}': it has "
            f"{table.select(column).distinct().count():,}, such as "
            f"{_some(table, column)}. See that the id is written as in the input, and that --output names "
            "the right table."
        )
    return wanted, row.asDict(recursive=True)


def _some(table: DataFrame, column: str) -> str:
    """Three ids of a table."""
    few = table.select(column).distinct().limit(3).collect()
    return ", ".join(shown(short(row[0])) for row in few)


def opened_as(
    spark: SparkSession, table: str, settings: Mapping[str, Any], version: int | None
) -> InputTable:
    """A table, opened with the columns that a run's settings name; errors as of `open_input`."""
    names = ColumnNames(*(settings.get(f"{role}_column") for role in ("session", "item", "time", "order")))
    return open_input(spark, table, version=version, columns=names)


def from_input(
    spark: SparkSession,
    run: Mapping[str, Any],
    settings: Mapping[str, Any],
    read: Callable[[InputTable], _Found],
) -> _Found | None:
    """What the run's input says, as it was then; None where it has gone, or its old version has.

    Args:
        spark: the session.
        run: its row of the runs table.
        settings: its settings.
        read: gets the input.
    """
    try:
        with reading_errors(run["input"]):
            return read(opened_as(spark, run["input"], settings, run["input_version"]))
    except InputError:
        return None
