"""The tables of one run, at the versions it wrote: a later run to the same output changes nothing here."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.commits import runs_by_version
from prune_lib.delta import table_version
from prune_lib.errors import InputError
from prune_lib.locations import is_location
from prune_lib.lookup import Versions
from prune_lib.moments import with_zone
from prune_lib.sessions.opening import load_table, reached
from prune_lib.summary import tables_of

__all__ = ["belonging", "pinned", "run_row_of", "versions_of"]

# Files of a version that are looked for: those of one version go together.
_LOOKED_FOR = 3


def versions_of(spark: SparkSession, output: str, run_id: str | None = None) -> tuple[str, Versions]:
    """A run and the newest versions of its tables that hold what it wrote.

    What only moves files (OPTIMIZE) counts to the run before it.

    Args:
        spark: the session.
        output: the pruned table.
        run_id: the run; None for the last one.

    Returns:
        The run's id, and versions by kind of table. Cost: a look at each table's history.

    Raises:
        InputError: there are no such tables, or the run is not in their history.
    """
    found: dict[str, int] = {}
    for kind, place in tables_of(output).items():
        runs = _runs_by_version(spark, place)
        run_id = run_id or next(iter(runs.values()), None)
        version = next((version for version, run in runs.items() if run == run_id), None)
        if run_id is None or version is None:
            asked = "a pruning run" if run_id is None else f"the run {run_id}"
            raise InputError(
                f"The history of the table {place} does not know {asked}. Give the pruned table that prune "
                "wrote; where its history was cut off, prune again."
            )
        found[kind] = version
    assert run_id is not None  # or it was not found
    return run_id, found


def belonging(spark: SparkSession, output: str) -> Versions:
    """Versions of an output's tables that belong together, by kind: those of the last run that ended.

    After a run that was killed between its commits, and while one writes them, the newest are of two runs.
    Nothing where the tables' histories do not tell (they were cut off): the newest must do then.
    """
    try:
        return versions_of(spark, output)[1]
    except InputError:
        return {}


def _runs_by_version(spark: SparkSession, place: str) -> dict[int, str]:
    if is_location(place):
        reached(spark, place)
    if table_version(spark, place) is None:
        raise InputError(
            f"There is no Delta table {place}. Give the pruned table that prune wrote; its companions lie "
            "beside it."
        )
    return runs_by_version(spark, place)


def pinned(spark: SparkSession, place: str, version: int) -> DataFrame:
    """A table at a version, if that can still be read.

    Raises:
        InputError: it cannot.
    """
    try:
        frame = load_table(spark, place, version)
        there = all(_exists(spark, file) for file in frame.inputFiles()[:_LOOKED_FOR])
    except InputError as problem:
        raise InputError(_gone(place, version)) from problem
    if not there:
        raise InputError(_gone(place, version))
    return frame


def _gone(place: str, version: int) -> str:
    return (
        f"The table {place} has lost its version {version}, which this run wrote: a later run replaced it, "
        "and its files are gone (VACUUM). Pruned.open gives the newest run's tables; prune again for these."
    )


def _exists(spark: SparkSession, file: str) -> bool:
    jvm: Any = spark._jvm
    session: Any = spark._jsparkSession
    path = jvm.org.apache.hadoop.fs.Path(file)
    files = path.getFileSystem(session.sessionState().newHadoopConf())
    # Some versions of Delta give names as they are, others as addresses (%20 for a blank).
    return bool(files.exists(path)) or bool(files.exists(jvm.org.apache.hadoop.fs.Path(unquote(file))))


def run_row_of(spark: SparkSession, runs: DataFrame, run_id: str) -> dict[str, Any]:
    """A run's row of the runs table.

    Raises:
        InputError: it is not there.
    """
    row = runs.filter(F.col("run_id") == run_id).first()
    if row is None:
        raise InputError(f"The runs table does not know the run {run_id}: somebody has changed it.")
    return with_zone(row.asDict(recursive=True))
