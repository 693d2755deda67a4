"""The tables of a run: the input as it is read, what may be written where, and the four that come out.

Each output table is one atomic commit: the companions first, the pruned table last, so that a
reader who sees a run's pruned rows sees everything of that run. All four are written, or none (`commits`).
"""

from __future__ import annotations

import json
import logging
import math
import re
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from prune_lib.commits import Seen, Written, versions_seen, write_together
from prune_lib.delta import child, hadoop_path, is_delta, leaf_names, quoted, special
from prune_lib.errors import InputError, OutputError
from prune_lib.locations import (
    companion,
    is_location,
    name_parts,
    name_problem,
    on_databricks,
    schema_of,
)
from prune_lib.schemas import PRUNED, TABLE_COMMENTS, conform
from prune_lib.sessions.opening import connector_hint, in_catalog
from prune_lib.wording import first_line

__all__ = [
    "check_columns",
    "check_output",
    "check_target",
    "check_writable",
    "pruned_frame",
    "read_table",
    "unusual_names",
    "write_tables",
]

_LOG = logging.getLogger(__name__)

# The order of the commits; the pruned table is what tells readers that a run is complete.
Table = Literal["decisions", "items", "runs", "pruned"]
WRITE_ORDER: tuple[Table, ...] = ("decisions", "items", "runs", "pruned")
# The column by which a table of ours is known.
_MARK = {"decisions": "run_id", "items": "run_id", "runs": "run_id", "pruned": "prune_run_id"}
# Delta keeps file statistics of the first 32 columns by default; prune_rank comes after the
# input's own.
_STATISTICS_COLUMNS = 32
# Column metadata that bind a column to its own Delta table (generated, identity, default, mapping).
_BOUND = ("delta.", "CURRENT_DEFAULT", "EXISTS_DEFAULT")

# Names of tables that Spark's own catalog takes, quoted or not; others may take more.
_CATALOGS_OWN = re.compile(r"[A-Za-z0-9_]+")

# A file of the pruned table: 5 million interactions are about 50 MB; and a few files even of a
# small table, so that a smaller rank skips some of them.
_FILE_INTERACTIONS = 5_000_000
_FEW_FILES, _FEW_SESSIONS = 8, 1_000
_MOST_FILES = 2_000


# ------------------------------------------------------------------------------------------ reading


def read_table(
    spark: SparkSession, name: str, *, version: int | None = None, timestamp: str | None = None
) -> DataFrame:
    """A Delta or Parquet table, by name or location, at a version where one is given.

    Args:
        spark: the session.
        name: `catalog.schema.table`, `schema.table`, or a location.
        version: Delta version to read; the newest by default.
        timestamp: read the table as it was then; not together with a version.

    Raises:
        InputError: there is no such table, or it has no such version.
    """
    travel: dict[str, str] = {}
    if version is not None:
        travel["versionAsOf"] = str(version)
    if timestamp is not None:
        travel["timestampAsOf"] = timestamp
    delta = is_delta(spark, name)
    if travel and not delta:
        raise InputError(
            f"The table {name} is not a Delta table, so it has no version or timestamp to go back "
            "to. Leave out --version and --timestamp."
        )
    try:
        if not is_location(name):
            frame = spark.read.options(**travel).table(name) if travel else spark.table(name)
        else:
            reader = spark.read.format("delta" if delta else "parquet").options(**travel)
            frame = reader.load(name)
    except AnalysisException as problem:
        raise InputError(
            f"The table {name} cannot be read: {first_line(problem)}. Give an existing Delta or Parquet "
            "table, as a name (catalog.schema.table) or a location (/folder, s3://bucket/folder), by --input."
        ) from problem
    return frame


# ------------------------------------------------------------------------------------ the kept rows


def check_columns(input_df: DataFrame) -> None:
    """See, before anything is computed, that the input's columns can be written out again.

    Raises:
        InputError: it has a `prune_` column already, or a column of a type that Delta lacks.
    """
    ours = {c.name for c in PRUNED}
    clash = [name for name in input_df.columns if name.lower() in ours]
    if clash:
        raise InputError(
            f"The input has the column{'s' if len(clash) > 1 else ''} {', '.join(clash)} already: it was "
            "written by a pruning run. Give the original table by --input, or drop its prune_ columns first."
        )
    foreign = [f.name for f in input_df.schema if _has_interval(f.dataType)]
    if foreign:
        raise InputError(
            f"The input's column{'s' if len(foreign) > 1 else ''} {', '.join(foreign)} "
            f"{'are' if len(foreign) > 1 else 'is'} of a type that Delta tables cannot hold (INTERVAL), and "
            "the kept rows are written with all their columns. Cast to BIGINT or STRING, or drop."
        )


def _has_interval(kind: DataType) -> bool:
    if isinstance(kind, StructType):
        return any(_has_interval(field.dataType) for field in kind)
    if isinstance(kind, ArrayType):
        return _has_interval(kind.elementType)
    if isinstance(kind, MapType):
        return _has_interval(kind.keyType) or _has_interval(kind.valueType)
    return kind.simpleString().startswith("interval")


def unusual_names(input_df: DataFrame) -> list[str]:
    """Columns whose names need Delta's column mapping, which delta-rs does not read."""
    return [name for name in leaf_names(input_df.schema) if special(name)]


def pruned_frame(input_df: DataFrame, session_column: str, selection: DataFrame, run_id: str) -> DataFrame:
    """The kept rows of the input, all their columns untouched, with the `prune_` columns added.

    Args:
        input_df: the input as it was read, events (a row a click) or sessions (a row a session).
        session_column: its column of session ids.
        selection: the kept sessions: session_id (of the input's type), rank, reason, difficulty,
            weight.
        run_id: id of the run.

    Returns:
        Every row of every kept session. Column comments of the input survive. Cost: one join on the
        session id; nothing is computed yet.

    Raises:
        InputError: the input has a `prune_` column already.
    """
    check_columns(input_df)
    own = [_unbound(field) for field in input_df.schema.fields]
    key = "__prune_session"
    chosen = selection.select(
        F.col("session_id").alias(key),
        F.col("rank").alias("prune_rank"),
        F.col("reason").alias("prune_reason"),
        F.col("difficulty").alias("prune_difficulty"),
        F.col("weight").alias("prune_weight"),
        *([F.col("length").alias("prune_length")] if "length" in selection.columns else []),
    )
    kept = (
        input_df.select(*own)
        .join(chosen, F.col(quoted(session_column)) == F.col(key))
        .drop(key)
        .withColumn("prune_run_id", F.lit(run_id))
    )
    return conform(kept, "pruned", "string", "string")


def _unbound(field: StructField) -> Column:
    """The column without what binds it to its own table; its comment stays."""
    column = F.col(quoted(field.name))
    free = {k: v for k, v in field.metadata.items() if not k.startswith(_BOUND)}
    if free == field.metadata:
        return column
    # Spark takes empty metadata for none given, and keeps the old: an empty comment stands in.
    return column.alias(field.name, metadata=free or {"comment": ""})


# ------------------------------------------------------------------------------------------ writing


def check_output(spark: SparkSession, output: str) -> Seen:
    """See, before anything is computed, that a run may write its four tables.

    Args:
        spark: the session.
        output: the pruned table; its companions are checked too.

    Returns:
        The versions of the four: what the run writes comes after these, see `write_tables`.

    Raises:
        OutputError: something is there that no pruning run wrote, or the place cannot be written.
    """
    for table in WRITE_ORDER:
        check_target(spark, _target(output, table), _MARK[table], "a pruning run", f"its table `{table}`")
    return versions_seen(spark, [_target(output, table) for table in WRITE_ORDER])


def check_target(spark: SparkSession, target: str, mark: str, writer: str, what: str = "its own") -> None:
    """See that a job may write a table.

    Args:
        spark: the session.
        target: a name or a location.
        mark: a column by which a table of this job is known.
        writer: the job, for messages.
        what: it would put there, for messages.

    Raises:
        OutputError: something is there that the job did not write, or the place cannot be written.
    """
    if is_location(target):
        _check_location(spark, target, mark, writer, what)
    else:
        _check_name(spark, target, mark, writer, what)


def write_tables(
    spark: SparkSession,
    frames: Mapping[str, DataFrame],
    output: str,
    info: Mapping[str, Any],
    seen: Seen | None = None,
) -> None:
    """Write the four tables of a run, or none: companions first, the pruned table last.

    `decisions`, `items` and `pruned` are replaced (the former contents stay in Delta's history),
    `runs` is added to. The rows of `pruned` are laid out by rank, so that a smaller rank skips
    files. What a run that was killed between its commits has left counts for nothing.

    Args:
        spark: the session.
        frames: pruned, decisions, items, runs, each in its schema (`schemas.conform`).
        output: the pruned table, a name or a location; its companions stand beside it.
        info: what the commits' user metadata say: run id, settings hash, input version, experts
            version.
        seen: of `check_output` when the run began; None: it begins now.

    Raises:
        OutputError: see `check_output`; or another run has written to these tables since it began, and they
            are as that one left them.
        Exception: whatever Spark raises; the tables are then as they were.
    """
    missing = [table for table in WRITE_ORDER if table not in frames]
    if missing:
        raise ValueError(f"no frame for {', '.join(missing)}")
    if seen is None:
        seen = check_output(spark, output)

    def tables() -> Iterator[Written]:
        for table in WRITE_ORDER:
            frame, target = frames[table], _target(output, table)
            if table == "pruned":
                files = _file_count(read_table(spark, _target(output, "decisions")))
                frame = frame.repartitionByRange(files, "prune_rank").sortWithinPartitions("prune_rank")
            yield Written(
                target,
                frame,
                TABLE_COMMENTS[table],
                append=table == "runs" and not _is_first(spark, output, seen),
                properties=_extra_properties(frame.schema, table),
                whole=table != "pruned",
            )

    write_together(spark, tables(), json.dumps(dict(info), sort_keys=True, default=str), seen, output)


def _is_first(spark: SparkSession, output: str, seen: Seen) -> bool:
    """Whether no run has ended: the table of runs has at most that of one that was cut off."""
    runs = _target(output, "runs")
    return seen[runs] is None or (seen[output] is None and read_table(spark, runs).count() <= 1)


def _extra_properties(schema: StructType, table: Table) -> dict[str, str]:
    if table == "pruned" and len(list(leaf_names(schema))) > _STATISTICS_COLUMNS:
        return {"delta.dataSkippingStatsColumns": "prune_rank"}
    return {}


def _file_count(decisions: DataFrame) -> int:
    """Files of the pruned table: enough that a smaller rank skips some, none huge."""
    kept = (
        decisions.filter("kept")
        .agg(
            F.count(F.lit(1)).alias("sessions"),
            F.coalesce(F.sum(F.col("interactions").cast("bigint")), F.lit(0)).alias("interactions"),
        )
        .first()
    )
    assert kept is not None  # an aggregate without keys has one row
    few = min(_FEW_FILES, math.ceil(int(kept["sessions"]) / _FEW_SESSIONS))
    many = math.ceil(int(kept["interactions"]) / _FILE_INTERACTIONS)
    return max(1, min(_MOST_FILES, max(few, many)))


# ------------------------------------------------------------------------------------ what is there


def _check_location(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    try:
        fs, path = hadoop_path(spark, target)
        fs.exists(path)
    # An unknown scheme or host, a store that refuses or does not answer.
    except (Py4JJavaError, PySparkException) as problem:
        raise OutputError(
            f"The output {target} is no place that this Spark can write: {first_line(problem)}. "
            f"{connector_hint(spark, target)}"
        ) from problem
    if is_delta(spark, target):
        _check_ours(spark, target, mark, writer, what)
    elif fs.exists(path):
        if not fs.getFileStatus(path).isDirectory():
            raise OutputError(
                f"The output {target} is a file. Give a folder that is empty or does not exist, by --output."
            )
        # A first run that was killed leaves data files beside a log without a commit: not foreign.
        log = child(spark, path, "_delta_log")
        if len(fs.listStatus(path)) > 0 and not fs.exists(log):
            raise OutputError(
                f"The folder {target} is not empty and no Delta table: a run would write {what} over it. "
                "Give another --output, or empty the folder."
            )
    check_writable(spark, target)


def _check_name(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    problem = name_problem(target) or _catalogs_problem(spark, target)
    if problem:
        raise OutputError(f"The output table {target} {problem}. Give another --output.")
    schema = schema_of(target)
    if schema and not spark.catalog.databaseExists(schema):
        raise OutputError(
            f"There is no schema {schema} for the output table {target}. Create it (CREATE SCHEMA "
            f"{schema}), or give another --output."
        )
    if not in_catalog(spark, target):
        _check_not_forgotten(spark, target)
        return
    if not is_delta(spark, target):
        raise OutputError(
            f"The output {target} exists and is not a Delta table. Give another --output, or drop it."
        )
    _check_ours(spark, target, mark, writer, what)


def _check_not_forgotten(spark: SparkSession, target: str) -> None:
    """Refuse a name whose table is there and which the catalog does not know.

    Spark would write its commits on top of the former table's, which reads like another run's at work.
    """
    if on_databricks() or not _sparks_own(spark, target):  # there is a metastore
        return
    database = spark.catalog.getDatabase(schema_of(target) or spark.catalog.currentDatabase())
    jvm: Any = spark._jvm
    folder = (name_parts(target) or [])[-1].strip("`").lower()
    place = str(jvm.org.apache.hadoop.fs.Path(database.locationUri, folder).toString())
    if is_delta(spark, place):
        raise OutputError(
            f"The files of a former table are in {place}, where the output {target} would lie, and this "
            "Spark does not know its name any more: it forgets names at the end of a session unless it has a "
            "metastore. Add `--conf spark.sql.catalogImplementation=hive`, give a location by --output, or "
            "delete that folder."
        )


def _sparks_own(spark: SparkSession, target: str) -> bool:
    """Whether a name is of the catalog that every Spark has."""
    parts = name_parts(target) or []
    catalog = parts[0].strip("`") if len(parts) == 3 else spark.catalog.currentCatalog()
    return catalog.lower() == "spark_catalog"


def _catalogs_problem(spark: SparkSession, target: str) -> str | None:
    """What Spark's own catalog would not take in the name of a new table, after all has been computed."""
    parts = name_parts(target) or []
    if not _sparks_own(spark, target) or _CATALOGS_OWN.fullmatch(parts[-1].strip("`")):
        return None
    return (
        f"has the part {parts[-1]}, and this catalog takes letters from a to z, digits and underscores only, "
        "in backquotes too"
    )


def _check_ours(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    if mark not in read_table(spark, target).columns:
        raise OutputError(
            f"The Delta table {target} was not written by {writer} (it has no column {mark}): a run would "
            f"replace it by {what}. Give another --output."
        )


def check_writable(
    spark: SparkSession, target: str, what: str = "The output", flag: str = "--output"
) -> None:
    """See that the nearest existing folder at or above a place may be written.

    Args:
        spark: the session.
        target: a location.
        what: how the message calls it.
        flag: by which another can be given, for the message.

    Raises:
        OutputError: it may not, or is no place that this Spark comes to.
    """
    try:
        problem = _unwritable(spark, target)
    # An unknown scheme or host, a store that refuses or does not answer.
    except (Py4JJavaError, PySparkException) as refusal:
        raise OutputError(
            f"{what} {target} is no place that this Spark can write: {first_line(refusal)}. "
            f"{connector_hint(spark, target)}"
        ) from refusal
    if problem:
        raise OutputError(
            f"{what} {target} cannot be written: {problem}. Give another {flag}, or change the folder's "
            "permissions."
        )


def _unwritable(spark: SparkSession, target: str) -> str:
    """Why a place cannot be written; empty where it can, or the write itself must tell."""
    fs, path = hadoop_path(spark, target)
    while not fs.exists(path):
        path = path.getParent()
        if path is None:  # an object store without folders
            return ""
    jvm: Any = spark._jvm
    if not fs.getFileStatus(path).isDirectory():
        return f"{path.toString()} is a file"
    if fs.getUri().getScheme() == "file":
        # Permission bits do not tell of read-only mounts, nor of the superuser: try it.
        folder = path.toUri().getPath()
        try:
            with tempfile.TemporaryDirectory(prefix=".prune-", dir=folder):
                pass
        except OSError as refusal:
            return f"the folder {folder} may not be written by this user ({refusal.strerror})"
        return ""
    try:
        fs.access(path, jvm.org.apache.hadoop.fs.permission.FsAction.WRITE)
    except Exception as refusal:  # py4j wraps the Java exception
        if "AccessControlException" in str(refusal):
            return f"the folder {path.toString()} may not be written by this user"
    return ""


def _target(output: str, table: Table) -> str:
    return output if table == "pruned" else companion(output, table)
