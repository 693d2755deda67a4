"""Several Delta tables written as one: each in one commit, all of them or none, by one run at a time.

Delta's commits are atomic by table; across tables nothing is. So a run notes at its start which versions the
tables have, writes them in turn, and goes back to those versions where a commit fails. Where another run has
written to one of them meanwhile, the first to commit wins: the other takes its own commits back and says so.

A run that is killed between two commits cannot go back. Which rows are whose is told by the run id that every
commit carries (`runs_by_version`).
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from delta import exceptions
from pyspark.sql import DataFrame, SparkSession

from prune_lib.delta import PROPERTIES, hadoop_path, identifier, is_delta, mapping, quoted, table_version
from prune_lib.errors import OutputError
from prune_lib.locations import is_location

if TYPE_CHECKING:
    from pyspark.sql import Row

__all__ = [
    "Seen",
    "Written",
    "runs_by_version",
    "versions_seen",
    "whole_versions",
    "write_together",
]

_LOG = logging.getLogger(__name__)

# Of Delta, where two transactions are open at once; they have no base class in Python.
_CONFLICTS = (
    exceptions.ConcurrentAppendException,
    exceptions.ConcurrentDeleteDeleteException,
    exceptions.ConcurrentDeleteReadException,
    exceptions.ConcurrentTransactionException,
    exceptions.ConcurrentWriteException,
    exceptions.DeltaConcurrentModificationException,
    exceptions.MetadataChangedException,
    exceptions.ProtocolChangedException,
)
#: Versions of tables, by name or location; None where there is no table.
Seen = Mapping[str, int | None]


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
        whole: version that counts as what is there, where newer ones are of a run that was cut off.
    """

    target: str
    frame: DataFrame
    comment: str
    append: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    gone: DataFrame | None = None
    whole: int | None = None


def versions_seen(spark: SparkSession, targets: Iterable[str]) -> Seen:
    """The newest version of each table; a run takes them at its start, see `write_together`."""
    return {target: table_version(spark, target) for target in targets}


def runs_by_version(spark: SparkSession, place: str) -> dict[int, str]:
    """Whose rows each version of a table holds, the newest first.

    What only moves files (OPTIMIZE) counts to the run before it, and so does what others write.
    """
    history = spark.sql(f"DESCRIBE HISTORY {identifier(spark, place)}").select("version", "userMetadata")
    out: dict[int, str] = {}
    run = None
    for row in sorted(history.collect(), key=lambda row: int(row["version"])):
        run = _run_id(row["userMetadata"]) or run
        if run is not None:
            out[int(row["version"])] = run
    return dict(reversed(out.items()))


def _run_id(note: str | None) -> str | None:
    """The run that a commit's own words name."""
    try:
        said = json.loads(note or "")
    except ValueError:
        return None
    return said.get("run_id") or said.get("ingest_run") if isinstance(said, dict) else None


def whole_versions(spark: SparkSession, last: str, others: Iterable[str]) -> dict[str, int]:
    """Where a run was cut off between its commits: the versions before it.

    Args:
        spark: the session.
        last: the table that a run writes last.
        others: tables that it writes before.

    Returns:
        Of the tables that hold rows of a run which did not come to write the last one, the newest versions
        of the run that did. Cost: a look at each table's history.
    """
    if table_version(spark, last) is None:
        return {}
    whole = next(iter(runs_by_version(spark, last).values()), None)
    found: dict[str, int] = {}
    for target in others:
        runs = runs_by_version(spark, target) if table_version(spark, target) is not None else {}
        newest = next(iter(runs.values()), None)
        if whole is not None and newest != whole and whole in runs.values():
            found[target] = next(version for version, run in runs.items() if run == whole)
            _LOG.warning("the run %s was cut off after it wrote %s; that is replaced", newest, target)
    return found


def write_together(spark: SparkSession, tables: Iterable[Written], note: str, seen: Seen) -> None:
    """Write tables in turn, each in one commit, or none of them.

    Args:
        spark: the session.
        tables: what is written, in this order; asked for one by one, so that one may be made of those before.
            The first is the one that runs side by side contend for.
        note: user metadata of the commits, no other run's.
        seen: versions of all of them as they were when the run began.

    Raises:
        OutputError: another run has written one of them since; they are as it left them.
        Exception: whatever Spark raises; the tables are then as they were.
    """
    formers = {
        target: _Former(target, version, _is_folder(spark, target)) for target, version in seen.items()
    }
    for former in formers.values():
        _see_alone(spark, former, note)
    begun: list[_Former] = []
    try:
        for table in tables:
            former = formers[table.target]
            if table.whole is not None:
                former = _Former(former.target, former.version, former.folder, table.whole)
            begun.append(former)
            try:
                _commit(spark, table, former, note)
            except _CONFLICTS as problem:
                raise _not_alone(spark, table.target) from problem
            if len(begun) == 1:
                # Who begins to write when another has just done so meets no conflict of Delta's.
                _see_alone(spark, former, note)
            _LOG.info("wrote %s", table.target)
        for former in begun:
            _see_alone(spark, former, note)
    # A run that is stopped by hand leaves the tables as they were, too.
    except BaseException:
        for former in reversed(begun):
            _undo(spark, former, note)
        raise


@dataclass(frozen=True)
class _Former:
    """What was at a target before the run wrote to it.

    Attributes:
        target: a name or a location.
        version: its newest when the run began; None where there was no table.
        folder: whether there was a folder, perhaps an empty one.
        whole: the version to go back to, where that is not the newest.
    """

    target: str
    version: int | None
    folder: bool
    whole: int | None = None


def _is_folder(spark: SparkSession, target: str) -> bool:
    if not is_location(target):
        return False
    fs, path = hadoop_path(spark, target)
    return bool(fs.exists(path))


def _see_alone(spark: SparkSession, former: _Former, note: str) -> None:
    """Refuse where another has written to a target since the run began."""
    if _since(spark, former, note)[1]:
        raise _not_alone(spark, former.target)


def _not_alone(spark: SparkSession, target: str) -> OutputError:
    """Say who was there; by the newest version that another wrote."""
    last = spark.sql(f"DESCRIBE HISTORY {identifier(spark, target)} LIMIT 1").first()
    whose = _run_id(last["userMetadata"]) if last is not None else None
    return OutputError(
        f"Another writer{f', the run {whose},' if whose else ''} wrote to {target} while this run was at "
        "work. That stays, and this run has left none of its tables. Run it again, or give it another "
        "--output; where a scheduler starts jobs, let one at a time write an output (max_concurrent_runs: 1)."
    )


def _commit(spark: SparkSession, table: Written, former: _Former, note: str) -> None:
    if table.key is not None and former.version is not None:
        _merge(spark, table, table.key, note)
        return
    place = identifier(spark, former.target)
    writer = table.frame.writeTo(place).option("userMetadata", note)
    if table.append and former.version is not None:
        if former.whole not in (None, former.version):
            _restore(spark, former.target, former.whole, note)
        writer.option("mergeSchema", "true").append()
        return
    writer = writer.using("delta").tableProperty("comment", table.comment)
    for key, value in {**PROPERTIES, **mapping(table.frame.schema), **table.properties}.items():
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
    frame.createOrReplaceTempView(view)
    try:
        with _configured(spark, {_EVOLVE: "true", _NOTE: note}):
            there, new = f"t.{quoted(key)}", f"s.{quoted(mark)}"
            spark.sql(
                f"MERGE INTO {identifier(spark, table.target)} t USING {view} s ON {there} = s.{quoted(key)} "
                f"WHEN MATCHED AND {new} IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET * "
                f"WHEN NOT MATCHED AND {new} IS NOT NULL THEN INSERT *"
            )
    finally:
        spark.catalog.dropTempView(view)


@contextmanager
def _configured(spark: SparkSession, wanted: Mapping[str, str]) -> Iterator[None]:
    """The session with other settings for a while."""
    before = {name: spark.conf.get(name, None) for name in wanted}
    try:
        for name, value in wanted.items():
            spark.conf.set(name, value)
        yield
    finally:
        for name, former in before.items():
            if former is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, former)


def _restore(spark: SparkSession, target: str, version: int | None, note: str) -> None:
    with _configured(spark, {_NOTE: note}):
        spark.sql(f"RESTORE TABLE {identifier(spark, target)} TO VERSION AS OF {version}")


def _undo(spark: SparkSession, former: _Former, note: str) -> None:
    """Bring a target back; what goes wrong here is logged, so that the first failure is raised."""
    back = former.version if former.whole is None else former.whole
    try:
        ours, theirs = _since(spark, former, note)
        if theirs and ours and max(theirs) < min(ours):
            back = max(theirs)  # the other was first
        elif theirs and ours:
            # To go back would take away what another has written.
            _LOG.error(
                "%s stays as it is: another writer committed version %s to it meanwhile; of this run, which "
                "failed, is version %s. Take that out by hand",
                former.target,
                ", ".join(map(str, theirs)),
                ", ".join(map(str, ours)),
            )
            return
        if ours and back is not None:
            _restore(spark, former.target, back, note)
            _LOG.warning("restored %s to version %d", former.target, back)
        elif former.version is not None or theirs:
            return
        elif is_location(former.target):
            fs, path = hadoop_path(spark, former.target)
            fs.delete(path, True)
            if former.folder:
                fs.mkdirs(path)
        else:
            spark.sql(f"DROP TABLE IF EXISTS {former.target}")
    except Exception as problem:
        _LOG.error(
            "%s could not be brought back to %s: %s",
            former.target,
            "its absence" if back is None else f"version {back}",
            problem,
        )


#: Operations that change no row: going back before them takes nothing away.
_TIDYING = ("OPTIMIZE", "VACUUM START", "VACUUM END", "COMPUTE STATS")
# Commits that are looked at first; a run's own are fewer.
_FEW = 8


def _since(spark: SparkSession, former: _Former, note: str) -> tuple[list[int], list[int]]:
    """Versions that came after a former one: those of a run, by its note, and those of others.

    What was taken back since, by whomever, does not count; nor does of a run's own what another replaced.
    """
    ours: list[int] = []
    theirs: list[int] = []
    for row in _newer(spark, former.target, former.version):
        if row["operation"] == "RESTORE" and _restored(row) == former.version:
            ours.clear()
            theirs.clear()
        elif row["userMetadata"] == note:
            ours.append(int(row["version"]))
        elif row["operation"] not in _TIDYING:
            theirs.append(int(row["version"]))
            if "REPLACE" in row["operation"]:
                ours.clear()
    return ours, theirs


def _restored(row: Row) -> int | None:
    version: Any = (row["operationParameters"] or {}).get("version")
    return None if version is None else int(version)


def _newer(spark: SparkSession, target: str, version: int | None) -> list[Row]:
    """Commits after a version, the oldest first; all there are where it is None."""
    if not is_delta(spark, target):
        return []
    oldest = -1 if version is None else version
    few = _FEW
    while True:
        asked = f"DESCRIBE HISTORY {identifier(spark, target)} LIMIT {few}"
        columns = ("version", "operation", "operationParameters", "userMetadata")
        rows = sorted(spark.sql(asked).select(*columns).collect(), key=lambda row: int(row["version"]))
        if len(rows) < few or int(rows[0]["version"]) <= oldest + 1:
            return [row for row in rows if int(row["version"]) > oldest]
        few *= 8
