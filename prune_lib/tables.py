"""Reading the input and writing the output: Delta tables, by name or by location.

Each output table is one atomic commit: the companions first, the pruned table last, so that a
reader who sees a run's pruned rows sees everything of that run. Where a commit fails, the tables
before it go back to the version that they had.
"""

from __future__ import annotations

import json
import logging
import math
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from prune_lib.errors import InputError, OutputError
from prune_lib.locations import companion, is_location
from prune_lib.schemas import PRUNED, TABLE_COMMENTS, conform
from prune_lib.sessions.opening import has_commit

__all__ = [
    "Written",
    "check_columns",
    "check_output",
    "check_target",
    "identifier",
    "pruned_frame",
    "read_table",
    "replace_table",
    "special",
    "table_version",
    "unusual_names",
    "write_tables",
    "write_together",
]

_LOG = logging.getLogger(__name__)

# The order of the commits; the pruned table is what tells readers that a run is complete.
Table = Literal["decisions", "items", "runs", "pruned"]
WRITE_ORDER: tuple[Table, ...] = ("decisions", "items", "runs", "pruned")
# The column by which a table of ours is known.
_MARK = {"decisions": "run_id", "items": "run_id", "runs": "run_id", "pruned": "prune_run_id"}
# Tables stay readable by delta-rs and older readers: no deletion vectors where a runtime's default
# turns them on.
_PROPERTIES = {"delta.enableDeletionVectors": "false"}
# Delta keeps file statistics of the first 32 columns by default; prune_rank comes after the
# input's own.
_STATISTICS_COLUMNS = 32
# Parquet refuses these in names; only column mapping gets around it.
_SPECIAL = set(" ,;{}()\n\t=")
# Column metadata that bind a column to its own Delta table (generated, identity, default, mapping).
_BOUND = ("delta.", "CURRENT_DEFAULT", "EXISTS_DEFAULT")

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
    delta = _is_delta(spark, name)
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
        first = str(problem).strip().splitlines()[0]
        raise InputError(
            f"The table {name} cannot be read: {first} Give an existing Delta or Parquet table, as "
            "a name (catalog.schema.table) or a location (/folder, s3://bucket/folder), by --input."
        ) from problem
    return frame


def table_version(spark: SparkSession, name: str) -> int | None:
    """Newest version of a Delta table; None where there is no table or it is not Delta."""
    if not _is_delta(spark, name):
        return None
    # In SQL: DeltaTable.forName takes no name of three parts.
    last = spark.sql(f"DESCRIBE HISTORY {identifier(spark, name)} LIMIT 1").select("version").first()
    return None if last is None else int(last["version"])


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
    return [name for name in _leaf_names(input_df.schema) if special(name)]


def special(name: str) -> bool:
    """Whether a column's name needs Delta's column mapping."""
    return bool(_SPECIAL & set(name))


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
        .join(chosen, F.col(_quoted(session_column)) == F.col(key))
        .drop(key)
        .withColumn("prune_run_id", F.lit(run_id))
    )
    return conform(kept, "pruned", "string", "string")


def _unbound(field: StructField) -> Column:
    """The column without what binds it to its own table; its comment stays."""
    column = F.col(_quoted(field.name))
    free = {k: v for k, v in field.metadata.items() if not k.startswith(_BOUND)}
    if free == field.metadata:
        return column
    # Spark takes empty metadata for none given, and keeps the old: an empty comment stands in.
    return column.alias(field.name, metadata=free or {"comment": ""})


# ------------------------------------------------------------------------------------------ writing


def check_output(spark: SparkSession, output: str) -> None:
    """See, before anything is computed, that a run may write its four tables.

    Args:
        spark: the session.
        output: the pruned table; its companions are checked too.

    Raises:
        OutputError: something is there that no pruning run wrote, or the place cannot be written.
    """
    for table in WRITE_ORDER:
        check_target(spark, _target(output, table), _MARK[table], "a pruning run", f"its table `{table}`")


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
    spark: SparkSession, frames: Mapping[str, DataFrame], output: str, info: Mapping[str, Any]
) -> None:
    """Write the four tables of a run, or none: companions first, the pruned table last.

    `decisions`, `items` and `pruned` are replaced (the former contents stay in Delta's history),
    `runs` is added to. The rows of `pruned` are laid out by rank, so that a smaller rank skips
    files.

    Args:
        spark: the session.
        frames: pruned, decisions, items, runs, each in its schema (`schemas.conform`).
        output: the pruned table, a name or a location; its companions stand beside it.
        info: what the commits' user metadata say: run id, settings hash, input version, experts
            version.

    Raises:
        OutputError: see `check_output`.
        Exception: whatever Spark raises; the tables are then as they were.
    """
    missing = [table for table in WRITE_ORDER if table not in frames]
    if missing:
        raise ValueError(f"no frame for {', '.join(missing)}")
    check_output(spark, output)

    def tables() -> Iterator[Written]:
        for table in WRITE_ORDER:
            frame = frames[table]
            if table == "pruned":
                files = _file_count(read_table(spark, _target(output, "decisions")))
                frame = frame.repartitionByRange(files, "prune_rank").sortWithinPartitions("prune_rank")
            properties = _extra_properties(frame.schema, table)
            yield Written(_target(output, table), frame, TABLE_COMMENTS[table], table == "runs", properties)

    write_together(spark, tables(), json.dumps(dict(info), sort_keys=True, default=str))


@dataclass(frozen=True)
class Written:
    """A table that is to be written.

    Attributes:
        target: a name or a location.
        frame: its rows.
        comment: of the table.
        append: to what is there; else it is replaced, and the former contents stay in Delta's history.
        properties: of the table, beside those of all our tables.
        key: a column by which rows replace those that are there; None: none are replaced.
        gone: of that column, the values whose rows are taken out.
    """

    target: str
    frame: DataFrame
    comment: str
    append: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    gone: DataFrame | None = None


def write_together(spark: SparkSession, tables: Iterable[Written], note: str) -> None:
    """Write tables in turn, each in one commit, or none of them.

    Args:
        spark: the session.
        tables: what is written, in this order; asked for one by one, so that one may be made of those before.
        note: user metadata of the commits.

    Raises:
        Exception: whatever Spark raises; the tables are then as they were.
    """
    begun: list[_Former] = []
    try:
        for table in tables:
            former = _former(spark, table.target)
            begun.append(former)
            _commit(spark, table, former, note)
            _LOG.info("wrote %s", table.target)
    # A run that is stopped by hand leaves the tables as they were, too.
    except BaseException:
        for former in reversed(begun):
            _undo(spark, former, note)
        raise


def replace_table(
    spark: SparkSession,
    frame: DataFrame,
    name: str,
    comment: str,
    properties: Mapping[str, str] | None = None,
) -> None:
    """Write a frame as a Delta table in one commit; what was there stays in the table's history.

    Args:
        spark: the session.
        frame: the rows; its columns' comments are its fields' metadata.
        name: a name or a location.
        comment: of the table.
        properties: of the table, beside those of all our tables.
    """
    writer = frame.writeTo(identifier(spark, name)).using("delta").tableProperty("comment", comment)
    for key, value in {**_PROPERTIES, **_mapping(frame.schema), **(properties or {})}.items():
        writer = writer.tableProperty(key, value)
    writer.createOrReplace()


@dataclass(frozen=True)
class _Former:
    """What was at a target before the run wrote to it: a version, or perhaps an empty folder."""

    target: str
    version: int | None
    folder: bool


def _former(spark: SparkSession, target: str) -> _Former:
    folder = False
    if is_location(target):
        fs, path = _path(spark, target)
        folder = bool(fs.exists(path))
    return _Former(target, table_version(spark, target), folder)


def _commit(spark: SparkSession, table: Written, former: _Former, note: str) -> None:
    if table.key is not None and former.version is not None:
        _merge(spark, table, table.key, note)
        return
    writer = table.frame.writeTo(identifier(spark, former.target)).option("userMetadata", note)
    if table.append and former.version is not None:
        writer.option("mergeSchema", "true").append()
        return
    writer = writer.using("delta").tableProperty("comment", table.comment)
    for key, value in {**_PROPERTIES, **_mapping(table.frame.schema), **table.properties}.items():
        writer = writer.tableProperty(key, value)
    writer.createOrReplace()


# A column that the table lacks is added to it; what the commit says of itself.
_EVOLVE = "spark.databricks.delta.schema.autoMerge.enabled"
_NOTE = "spark.databricks.delta.commitInfo.userMetadata"


def _merge(spark: SparkSession, table: Written, key: str, note: str) -> None:
    """Replace rows by their key, add those that are new, take out those that are gone; one commit."""
    frame = table.frame
    mark = next(name for name in frame.columns if name != key)
    if table.gone is not None:
        # Of a row that is to go only the key is known.
        frame = frame.unionByName(table.gone.select(key), allowMissingColumns=True)
    view = f"merged_{uuid.uuid4().hex}"
    before = {name: spark.conf.get(name, None) for name in (_EVOLVE, _NOTE)}
    frame.createOrReplaceTempView(view)
    try:
        spark.conf.set(_EVOLVE, "true")
        spark.conf.set(_NOTE, note)
        there, new = f"t.{_quoted(key)}", f"s.{_quoted(mark)}"
        spark.sql(
            f"MERGE INTO {identifier(spark, table.target)} t USING {view} s ON {there} = s.{_quoted(key)} "
            f"WHEN MATCHED AND {new} IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET * "
            f"WHEN NOT MATCHED AND {new} IS NOT NULL THEN INSERT *"
        )
    finally:
        spark.catalog.dropTempView(view)
        for name, value in before.items():
            if value is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, value)


def _extra_properties(schema: StructType, table: Table) -> dict[str, str]:
    if table == "pruned" and len(list(_leaf_names(schema))) > _STATISTICS_COLUMNS:
        return {"delta.dataSkippingStatsColumns": "prune_rank"}
    return {}


def _mapping(schema: StructType) -> dict[str, str]:
    """Column mapping where names need it; `unusual_names` warns of it."""
    unusual = any(map(special, _leaf_names(schema)))
    return {"delta.columnMapping.mode": "name"} if unusual else {}


def _leaf_names(data_type: DataType, name: str = "") -> Iterable[str]:
    """Names of all fields, those inside structs included; only leaves are counted by Delta."""
    if isinstance(data_type, StructType):
        for field in data_type.fields:
            yield from _leaf_names(field.dataType, f"{name}.{field.name}" if name else field.name)
    elif isinstance(data_type, ArrayType) and isinstance(data_type.elementType, StructType):
        yield from _leaf_names(data_type.elementType, name)
    elif isinstance(data_type, MapType) and isinstance(data_type.valueType, StructType):
        yield from _leaf_names(data_type.valueType, name)
    else:
        yield name


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


def _undo(spark: SparkSession, former: _Former, note: str) -> None:
    """Bring a target back; what goes wrong here is logged, so that the first failure is raised."""
    try:
        ours, theirs = _since(spark, former, note)
        if theirs:
            # To go back would take away what another has written.
            _LOG.error(
                "%s stays as it is: another writer committed version %s to it meanwhile; of this run, which "
                "failed, is %s. Take that out by hand",
                former.target,
                ", ".join(map(str, theirs)),
                f"version {', '.join(map(str, ours))}" if ours else "nothing",
            )
        elif former.version is not None:
            if ours:
                place = identifier(spark, former.target)
                spark.sql(f"RESTORE TABLE {place} TO VERSION AS OF {former.version}")
                _LOG.warning("restored %s to version %d", former.target, former.version)
        elif is_location(former.target):
            fs, path = _path(spark, former.target)
            fs.delete(path, True)
            if former.folder:
                fs.mkdirs(path)
        else:
            spark.sql(f"DROP TABLE IF EXISTS {former.target}")
    except Exception as problem:
        _LOG.error(
            "%s could not be brought back to %s: %s",
            former.target,
            "its absence" if former.version is None else f"version {former.version}",
            problem,
        )


#: Operations that change no row: going back before them takes nothing away.
_TIDYING = ("OPTIMIZE", "VACUUM START", "VACUUM END", "COMPUTE STATS")


def _since(spark: SparkSession, former: _Former, note: str) -> tuple[list[int], list[int]]:
    """Versions that came after a former one: those of a run, by its note, and those of others."""
    if not _is_delta(spark, former.target):
        return [], []
    history = spark.sql(f"DESCRIBE HISTORY {identifier(spark, former.target)}")
    newer = history.where(F.col("version") > F.lit(-1 if former.version is None else former.version))
    newer = newer.where(~F.col("operation").isin(*_TIDYING))
    rows = newer.select("version", "userMetadata").orderBy("version").collect()
    ours = [int(row["version"]) for row in rows if row["userMetadata"] == note]
    return ours, [int(row["version"]) for row in rows if row["userMetadata"] != note]


# ------------------------------------------------------------------------------------ what is there


def _check_location(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    fs, path = _path(spark, target)
    if _is_delta(spark, target):
        _check_ours(spark, target, mark, writer, what)
    elif fs.exists(path):
        if not fs.getFileStatus(path).isDirectory():
            raise OutputError(
                f"The output {target} is a file. Give a folder that is empty or does not exist, by --output."
            )
        # A first run that was killed leaves data files beside a log without a commit: not foreign.
        log = _child(spark, path, "_delta_log")
        if len(fs.listStatus(path)) > 0 and not fs.exists(log):
            raise OutputError(
                f"The folder {target} is not empty and no Delta table: a run would write {what} over it. "
                "Give another --output, or empty the folder."
            )
    _check_writable(spark, target)


def _check_name(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    schema = target.rpartition(".")[0]
    if schema and not spark.catalog.databaseExists(schema):
        raise OutputError(
            f"There is no schema {schema} for the output table {target}. Create it (CREATE SCHEMA "
            f"{schema}), or give another --output."
        )
    if not spark.catalog.tableExists(target):
        return
    if not _is_delta(spark, target):
        raise OutputError(
            f"The output {target} exists and is not a Delta table. Give another --output, or drop it."
        )
    _check_ours(spark, target, mark, writer, what)


def _check_ours(spark: SparkSession, target: str, mark: str, writer: str, what: str) -> None:
    if mark not in read_table(spark, target).columns:
        raise OutputError(
            f"The Delta table {target} was not written by {writer} (it has no column {mark}): a run would "
            f"replace it by {what}. Give another --output."
        )


def _check_writable(spark: SparkSession, target: str) -> None:
    """Whether the nearest existing folder above the target may be written."""
    fs, path = _path(spark, target)
    while not fs.exists(path):
        path = path.getParent()
        if path is None:  # an object store without folders: the write itself will tell
            return
    jvm: Any = spark._jvm
    problem = ""
    if not fs.getFileStatus(path).isDirectory():
        problem = f"{path.toString()} is a file"
    elif fs.getUri().getScheme() == "file":
        # Permission bits do not tell of read-only mounts, nor of the superuser: try it.
        folder = path.toUri().getPath()
        try:
            with tempfile.TemporaryDirectory(prefix=".prune-", dir=folder):
                pass
        except OSError as refusal:
            problem = f"the folder {folder} may not be written by this user ({refusal.strerror})"
    else:
        try:
            fs.access(path, jvm.org.apache.hadoop.fs.permission.FsAction.WRITE)
        except Exception as refusal:  # py4j wraps the Java exception
            if "AccessControlException" in str(refusal):
                problem = f"the folder {path.toString()} may not be written by this user"
    if problem:
        raise OutputError(
            f"The output {target} cannot be written: {problem}. Give another --output, or change "
            "the folder's permissions."
        )


def _is_delta(spark: SparkSession, name: str) -> bool:
    if is_location(name):
        fs, path = _path(spark, name)
        # isDeltaTable also says yes to a folder inside a Delta table and to a log without commits.
        log = _child(spark, path, "_delta_log")
        if not fs.exists(log) or not DeltaTable.isDeltaTable(spark, path.toString()):
            return False
        return has_commit(fs, log)
    if not spark.catalog.tableExists(name):
        return False
    try:
        detail = spark.sql(f"DESCRIBE DETAIL {name}").first()
    except AnalysisException:  # a view
        return False
    return detail is not None and detail["format"] == "delta"


def _target(output: str, table: Table) -> str:
    return output if table == "pruned" else companion(output, table)


def identifier(spark: SparkSession, name: str) -> str:
    """The table as an SQL identifier; a location is absolute in it."""
    if is_location(name):
        return f"delta.{_quoted(_path(spark, name)[1].toString())}"
    return name


def _path(spark: SparkSession, location: str) -> tuple[Any, Any]:
    """Hadoop's file system of a location and its qualified path."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(location)
    fs = path.getFileSystem(spark._jsparkSession.sessionState().newHadoopConf())
    return fs, fs.makeQualified(path)


def _child(spark: SparkSession, path: Any, name: str) -> Any:
    jvm: Any = spark._jvm
    return jvm.org.apache.hadoop.fs.Path(path, name)


def _quoted(name: str) -> str:
    return "`" + name.replace("`", "``") + "`"
