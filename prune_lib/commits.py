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
import re
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from delta import exceptions
from pyspark.sql import DataFrame, SparkSession

from prune_lib.delta import hadoop_path, identifier, is_delta, quoted, replace_table, table_version
from prune_lib.errors import AnotherWriter
from prune_lib.locations import is_location
from prune_lib.session import configured

if TYPE_CHECKING:
    from pyspark.sql import Row

__all__ = [
    "Seen",
    "Written",
    "runs_by_version",
    "versions_seen",
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
        whole: what a run that was cut off has left here counts for nothing: the rows are added to, and a
            failure goes back to, what a run left that came to write its last table.
    """

    target: str
    frame: DataFrame
    comment: str
    append: bool = False
    properties: Mapping[str, str] = field(default_factory=dict)
    key: str | None = None
    gone: DataFrame | None = None
    whole: bool = False


def versions_seen(spark: SparkSession, targets: Iterable[str]) -> Seen:
    """The newest version of each table; a run takes them at its start, see `write_together`."""
    return {target: table_version(spark, target) for target in targets}


def runs_by_version(spark: SparkSession, place: str) -> dict[int, str]:
    """Whose rows each version of a table holds, the newest first.

    What only moves files (OPTIMIZE) counts to the run before it, and so does what others write. Cost: a look
    at the whole history that there is.
    """
    return _runs(_history(spark, place))


@dataclass(frozen=True)
class _Commit:
    """A commit as the table's history has it; restored: the version that it went back to."""

    version: int
    operation: str
    note: str | None
    restored: int | None


# Commits that are looked at first; a run's own are fewer.
_FEW = 8


def _history(spark: SparkSession, target: str, after: int | None = None) -> list[_Commit]:
    """Commits of a table, the oldest first; none where there is no table.

    Args:
        spark: the session.
        target: a name or a location.
        after: those after this version, and a few before it, are enough.
    """
    if not is_delta(spark, target):
        return []
    limit = None if after is None else _FEW
    while True:
        asked = f"DESCRIBE HISTORY {identifier(spark, target)}"
        rows = spark.sql(asked if limit is None else f"{asked} LIMIT {limit}").collect()
        found = [
            _Commit(int(row["version"]), row["operation"], row["userMetadata"], _restored(row))
            for row in rows
        ]
        found.sort(key=lambda commit: commit.version)
        if limit is None or after is None or len(found) < limit or found[0].version <= after + 1:
            return found
        limit *= 8


def _restored(row: Row) -> int | None:
    version: Any = (row["operationParameters"] or {}).get("version")
    return int(version) if row["operation"] == "RESTORE" and version is not None else None


def _runs(history: Iterable[_Commit]) -> dict[int, str]:
    """Whose rows each version holds, the newest first; commits that nobody can be said of are left out."""
    out: dict[int, str] = {}
    run: str | None = None
    for commit in history:
        own = _run_id(commit.note)
        if commit.operation != "RESTORE":
            run = own or run
        else:  # to a version; whose rows those of a moment are, nobody can say
            run = None if commit.restored is None else out.get(commit.restored)
        if run is not None:
            out[commit.version] = run
    return dict(reversed(out.items()))


def _run_id(note: str | None) -> str | None:
    """The run that a commit's own words name."""
    try:
        said = json.loads(note or "")
    except ValueError:
        return None
    return said.get("run_id") or said.get("ingest_run") if isinstance(said, dict) else None


def _whole(
    spark: SparkSession, target: str, histories: Mapping[str, Sequence[_Commit]], last: str | None
) -> int | None:
    """The version before that of a run which was cut off; None where the newest is not of such a one."""
    if last is None or not histories[last]:
        return None
    newest = next(iter(_runs(histories[target]).values()), None)
    if newest in _runs(histories[last]).values():
        return None
    ended = set(runs_by_version(spark, last).values())
    runs = runs_by_version(spark, target)
    newest = next(iter(runs.values()), None)
    version = next((version for version, run in runs.items() if run in ended), None)
    if newest is None or newest in ended or version is None:
        return None
    _LOG.warning("the run %s was cut off after it had written %s; that is replaced", newest, target)
    return version


def write_together(
    spark: SparkSession, tables: Iterable[Written], note: str, seen: Seen, last: str | None = None
) -> None:
    """Write tables in turn, each in one commit, or none of them.

    Args:
        spark: the session.
        tables: what is written, in this order; asked for one by one, so that one may be made of those before.
            The first is the one that runs side by side contend for: the same of all that write these tables.
        note: user metadata of the commits, no other run's.
        seen: versions of all of them as they were when the run began.
        last: the table that a run writes last: what is not of a run that did is of one that was cut off.

    Cost: a look at each table's history, two more at the first's; at whole histories where a run was cut off.

    Raises:
        AnotherWriter: another run has written one of them since; they are as it left them.
        Exception: whatever Spark raises; the tables are then as they were.
    """
    formers = {
        target: _Former(target, version, _entries(spark, target) if version is None else None)
        for target, version in seen.items()
    }
    histories = {target: _history(spark, target, version or 0) for target, version in seen.items()}
    for former in formers.values():
        _see_alone(spark, former, note, histories[former.target])
    begun: list[_Former] = []
    try:
        for table in tables:
            former = formers[table.target]
            if table.whole:
                former = replace(former, whole=_whole(spark, table.target, histories, last))
            begun.append(former)
            try:
                _commit(spark, table, former, note)
            except _CONFLICTS as problem:
                raise _not_alone(spark, table.target, note) from problem
            if len(begun) == 1:
                # Who begins to write when another has just done so meets no conflict of Delta's.
                _see_alone(spark, former, note)
            _LOG.info("wrote %s", table.target)
        # Nor does who takes the first of these commits for what a run that was cut off has left; but who came
        # after it and looks, as above, takes its own back.
        for former in begun[:1]:
            _see_alone(spark, former, note, patience=_PATIENCE)
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
        entries: where there was no table: the names of what was in its folder; None: nor was there a folder.
        whole: the version to go back to, where that is not the newest.
    """

    target: str
    version: int | None
    entries: frozenset[str] | None
    whole: int | None = None


def _entries(spark: SparkSession, target: str) -> frozenset[str] | None:
    if not is_location(target):
        return None
    fs, path = hadoop_path(spark, target)
    return frozenset(_by_name(fs, path)) if fs.exists(path) else None


def _by_name(fs: Any, path: Any) -> dict[str, Any]:
    """What is in a folder, Hadoop's paths by their names."""
    return {str(status.getPath().getName()): status.getPath() for status in fs.listStatus(path)}


# Seconds for which a run that was first waits for one that was second to take its commit back.
_PATIENCE = 20.0


def _see_alone(
    spark: SparkSession,
    former: _Former,
    note: str,
    history: Sequence[_Commit] | None = None,
    patience: float = 0.0,
) -> None:
    """Refuse where another has written to a target since the run began, and does not take that back."""
    until = time.monotonic() + patience
    while True:
        if history is None:
            history = _history(spark, former.target, former.version or 0)
        _, theirs = _since(history, former, note)
        if not theirs:
            return
        # Only who has come after us, and is a run like ours, looks whether it was second.
        ours = [commit.version for commit in history if commit.note == note]
        runs = [_run_id(commit.note) for commit in history if commit.version in theirs]
        second = ours and min(ours) < min(theirs) and all(runs)
        if not second or time.monotonic() > until:
            raise _not_alone(spark, former.target, note)
        time.sleep(1.0)
        history = None


def _not_alone(spark: SparkSession, target: str, note: str) -> AnotherWriter:
    """Say who was there: the newest run but this one."""
    found = _runs(_history(spark, target, 0)).values()
    whose = next((run for run in found if run != _run_id(note)), None)
    return AnotherWriter(
        f"Another writer{f', the run {whose},' if whose else ''} wrote to {target} while this run was at "
        "work. That stays, and this run has left none of its tables. Run it again, or give it another "
        "--output; where a scheduler starts jobs, let one at a time write an output (max_concurrent_runs: 1)."
    )


def _commit(spark: SparkSession, table: Written, former: _Former, note: str) -> None:
    if table.key is not None and former.version is not None:
        _merge(spark, table, table.key, note)
        return
    if table.append and former.version is not None:
        if former.whole not in (None, former.version):
            _restore(spark, former.target, former.whole, note)
        writer = table.frame.writeTo(identifier(spark, former.target)).option("userMetadata", note)
        writer.option("mergeSchema", "true").append()
        return
    replace_table(spark, table.frame, former.target, table.comment, table.properties, note)


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
        with configured(spark, {_EVOLVE: "true", _NOTE: note}):
            there, new = f"t.{quoted(key)}", f"s.{quoted(mark)}"
            spark.sql(
                f"MERGE INTO {identifier(spark, table.target)} t USING {view} s ON {there} = s.{quoted(key)} "
                f"WHEN MATCHED AND {new} IS NULL THEN DELETE WHEN MATCHED THEN UPDATE SET * "
                f"WHEN NOT MATCHED AND {new} IS NOT NULL THEN INSERT *"
            )
    finally:
        spark.catalog.dropTempView(view)


def _restore(spark: SparkSession, target: str, version: int | None, note: str) -> None:
    with configured(spark, {_NOTE: note}):
        spark.sql(f"RESTORE TABLE {identifier(spark, target)} TO VERSION AS OF {version}")


def _undo(spark: SparkSession, former: _Former, note: str) -> None:
    """Bring a target back; what goes wrong here is logged, so that the first failure is raised."""
    back = former.version if former.whole is None else former.whole
    try:
        ours, theirs = _since(_history(spark, former.target, former.version or 0), former, note)
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
            _clear(spark, former, committed=bool(ours))
        elif ours:
            spark.sql(f"DROP TABLE IF EXISTS {former.target}")
    except Exception as problem:
        _LOG.error(
            "%s could not be brought back to %s: %s",
            former.target,
            "its absence" if back is None else f"version {back}",
            problem,
        )


_LOG_FOLDER = "_delta_log"
# How Spark calls the files that it writes, and Hadoop's checksums of them.
_DATA = re.compile(r"\.?part-\d{5}-")


def _clear(spark: SparkSession, former: _Former, committed: bool) -> None:
    """Take out of a folder that held no table what a run has written there, and nothing else.

    What was there when the run began stays, and so does what somebody has put there since.
    """
    fs, path = hadoop_path(spark, former.target)
    if not fs.exists(path):
        return
    before = former.entries or frozenset()
    there = _by_name(fs, path)
    for name, entry in there.items():
        # Column mapping puts files into folders of their own.
        files = [entry.getName()] if fs.getFileStatus(entry).isFile() else _files_below(fs, entry)
        if name not in before and name != _LOG_FOLDER and all(map(_DATA.match, files)):
            fs.delete(entry, True)
    log = there.get(_LOG_FOLDER)
    if log is not None and (committed or not any(_files_below(fs, log))):
        fs.delete(log, True)
        if _LOG_FOLDER in before:  # it tells that a run which was killed has left what is beside it
            fs.mkdirs(log)
    if former.entries is None and not _by_name(fs, path):
        fs.delete(path, False)


def _files_below(fs: Any, folder: Any) -> list[str]:
    """Names of the files in a folder, however deep."""
    names, walk = [], fs.listFiles(folder, True)
    while walk.hasNext():
        names.append(str(walk.next().getPath().getName()))
    return names


#: Operations that change no row: going back before them takes no row away.
_TIDYING = (
    "COMPUTE STATS",
    "OPTIMIZE",
    "SET TBLPROPERTIES",
    "UNSET TBLPROPERTIES",
    "VACUUM END",
    "VACUUM START",
)


def _since(history: Iterable[_Commit], former: _Former, note: str) -> tuple[list[int], list[int]]:
    """Versions that came after a former one: those of a run, by its note, and those of others.

    What was taken back since, by whomever, does not count; nor does of a run's own what another replaced.
    """
    now: tuple[list[int], list[int]] = [], []
    then = {former.version: now}  # by version
    for commit in history:
        if former.version is not None and commit.version <= former.version:
            continue
        ours, theirs = now
        if commit.restored is not None and commit.restored in then:
            now = then[commit.restored]
        elif commit.note == note:
            now = [*ours, commit.version], theirs
        elif commit.operation not in _TIDYING:
            now = [] if "REPLACE" in commit.operation else ours, [*theirs, commit.version]
        then[commit.version] = now
    return now
