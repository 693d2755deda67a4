"""What a run would replace and about how long it would take, by the run before it to the same output."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.commits import runs_by_version
from prune_lib.delta import table_version
from prune_lib.errors import UserError
from prune_lib.locations import companion
from prune_lib.sessions.columns import InputTable
from prune_lib.settings import PruneSettings
from prune_lib.summary import described
from prune_lib.tables import read_table

__all__ = ["forecast", "run_before", "seconds_by"]

#: Stages whose time does not grow with the input, or that a run may not have.
_APART = ("training", "demo data")
#: Stages that say how many rows an input of a layout has.
_COUNTS = {"sessions": "read", "events": "encode"}


def run_before(spark: SparkSession, output: str) -> dict[str, Any] | None:
    """The run's row of the last run that wrote an output; None where there is none, or it cannot be read."""
    try:
        if table_version(spark, output) is None:
            return None
        run_id = next(iter(runs_by_version(spark, output).values()), "")
        row = read_table(spark, companion(output, "runs")).where(F.col("run_id") == F.lit(run_id)).first()
        return None if row is None else described(row.asDict(recursive=True))
    except (PySparkException, Py4JJavaError, UserError):
        return None


def seconds_by(run: Mapping[str, Any], rows: int | None, layout: str, trains: bool) -> float:
    """Seconds that a run would take by those of a run on record, without the writing, which is not on record.

    Args:
        run: its row.
        rows: of the input, sessions or events; None: as many as then.
        layout: of the input.
        trains: whether experts are trained. If they were not then, their time is not in it.

    Returns:
        The sum over its stages, those that grow with the input scaled by its rows.
    """
    # Not the run's own counts, which are of samples where it chose those.
    before = next((s["rows"] for s in run["stages"] if s["name"] == _COUNTS[layout]), None)
    growth = 1.0 if rows is None or not before else rows / before
    spent = {stage["name"]: float(stage["seconds"]) for stage in run["stages"]}
    grown = sum(seconds * growth for name, seconds in spent.items() if name not in _APART)
    return grown + (spent.get("training", 0.0) * growth if trains else 0.0)


def forecast(
    spark: SparkSession, settings: PruneSettings, table: InputTable | None, experts: str | None, wanted: bool
) -> list[str]:
    """What a dry run says of the run before and of the time that this one would take.

    Args:
        spark: the session.
        settings: of the run.
        table: the input; None where it is still to be made.
        experts: version of the experts that would be used; None where they would be trained first.
        wanted: whether the method asks experts at all.

    Returns:
        Lines for people. Cost: the histories of two tables, and the number of the input's rows, which Delta's
        log and Parquet's footers say.
    """
    run = run_before(spark, settings.resolved_output)
    if run is None:
        return ["no run to this output is on record: what it would take is not known"]
    began = f"{run['started_at']:%Y-%m-%d %H:%M} UTC"
    lines = [f"replaces run {run['run_id']} of {began}, which stays in the tables' history"]
    # Of a view or a frame they would have to be computed.
    counted = table is not None and table.format in ("delta", "parquet") and not settings.since
    rows = _rows(table) if table is not None and counted else None
    trains = wanted and experts is None
    about = seconds_by(run, rows, "sessions" if table is None else table.layout, trains)
    were = {stage["name"]: stage["rows"] or 0 for stage in run["stages"]}
    lines.append(
        f"about {about:,.0f} s before the writing, by that run's {were.get('read', 0):,} sessions of "
        f"{were.get('encode', 0):,} interactions{'' if rows is None else f'; {rows:,} rows now'}"
    )
    other = [f"{key} {run[key]}" for key in ("method", "unit") if run[key] != getattr(settings, key)]
    if other:
        lines.append(f"which was by {' and '.join(other)}, and takes another time than this one")
    if trains and "training" not in {stage["name"] for stage in run["stages"]}:
        lines.append("and the training of experts, which that run did not do")
    if wanted and run["experts_version"] not in (None, experts):
        lines.append(f"not by that run's experts {run['experts_version']}: every session is scored anew")
    return lines


def _rows(table: InputTable) -> int | None:
    try:
        return table.df.count()
    except (PySparkException, Py4JJavaError):
        return None
