"""The Spark session: reused where there is one, else built, with a reason beside each setting."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

from py4j.java_gateway import is_instance_of
from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from prune_lib.errors import EnvironmentProblem

__all__ = [
    "check_runtime",
    "configured",
    "get_spark",
    "in_utc",
    "is_local",
    "measured_joins",
    "ship_package",
]

DELTA_SQL = "io.delta.sql.DeltaSparkSessionExtension"
_ARROW = "spark.sql.execution.arrow.pyspark.enabled"
_CATALOG = "spark.sql.catalog.spark_catalog"
_SETTINGS = {
    # Delta's catalog and its SQL (`_extensions`) are static: they must be there before the session is.
    _CATALOG: "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    # Timestamps mean the same on every machine.
    "spark.sql.session.timeZone": "UTC",
    # Pattern-sized results come to the driver as Arrow batches, not as pickled rows.
    _ARROW: "true",
    # Our own lines say what is going on; a progress bar would overwrite them.
    "spark.ui.showConsoleProgress": "false",
}


def get_spark(
    app_name: str, *, master: str | None = None, extra: Mapping[str, str] | None = None
) -> SparkSession:
    """The running session (Databricks, a notebook), or a new one with Delta and Arrow set up.

    Args:
        app_name: name shown in Spark's UI.
        master: a master for runs outside spark-submit; None leaves it to Spark.
        extra: further settings; they win over ours.

    Raises:
        EnvironmentProblem: Spark does not start with the settings that it was given, or is Spark Connect.
    """
    active = SparkSession.getActiveSession()
    _refuse_connect(_is_connect(active) if active is not None else "SPARK_REMOTE" in os.environ)
    if active is not None:
        ship_package(active)
        return active
    # Executors on this machine run the driver's Python, not the first python3 on the PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    wanted = SparkConf(loadDefaults=False)
    for key, value in {**_SETTINGS, **(extra or {})}.items():
        wanted.set(key, value)
    # The JVM starts here, with the memory that `extra` may ask for; SparkConf knows the cluster's own
    # configuration from then on.
    SparkContext._ensure_initialized(conf=wanted)
    builder = SparkSession.builder.appName(app_name)
    if master:
        builder = builder.master(master)
    for key, value in {**_SETTINGS, **_extensions(), **_umask(), **_daemon(master), **(extra or {})}.items():
        builder = builder.config(key, value)
    spark = _started(builder)
    spark.sparkContext.setLogLevel("ERROR")
    # The default of 200 shuffle partitions costs more than the work on a small cluster: four a core keep a
    # skewed partition from holding up the rest. A user's own setting stays.
    if spark.sparkContext.getConf().get("spark.sql.shuffle.partitions") is None:
        cores = spark.sparkContext.defaultParallelism
        spark.conf.set("spark.sql.shuffle.partitions", str(max(4 * cores, 8)))
    # Delta reads its log in 50 tasks whatever its size, a second or two for each table on two cores.
    if str(spark.sparkContext.master).startswith("local") and spark.conf.get(_LOG_PARTITIONS, None) is None:
        spark.conf.set(_LOG_PARTITIONS, str(max(spark.sparkContext.defaultParallelism, 2)))
    _remember_names(spark)
    ship_package(spark)
    return spark


#: Classes of the JVM that PySpark, or we, ask for by name with nearly every expression and table.
_NAMES = (
    "functions",
    "PythonUtils",
    "PythonRDD",
    "SimplePythonFunction",
    "SparkSession",
    "org.apache.hadoop.fs.Path",
    "org.apache.spark.sql.catalyst.expressions.UnresolvedNamedLambdaVariable",
    "org.apache.spark.sql.execution.python.UserDefinedPythonFunction",
    "org.apache.spark.sql.expressions.Window",
    "org.apache.spark.sql.types.Metadata",
    "org.apache.spark.sql.types.StructType",
)


def _remember_names(spark: SparkSession) -> None:
    """Keep what the JVM answers to the names that are asked for again and again.

    py4j asks anew each time, and the JVM looks for a class in every package that PySpark imports and, for
    each part of a package's name, through all jars of the class path: a sixth of the processor's time, and a
    fifth of all time, of a run on a small table.
    """
    for name in _NAMES:
        at: Any = spark._jvm
        with suppress(AttributeError, Py4JError):  # a vendor's view of the JVM may know less, or hold nothing
            for part in name.split("."):
                found = getattr(at, part)
                setattr(at, part, found)
                at = found


def _started(builder: SparkSession.Builder) -> SparkSession:
    """The session; what Spark says of settings that it refuses is the user's to read, without its trace."""
    jvm: Any = SparkContext._jvm
    levels, where = jvm.org.apache.logging.log4j, "org.apache.spark.SparkContext"
    with suppress(Py4JError, TypeError):  # another logger
        levels.core.config.Configurator.setLevel(where, levels.Level.OFF)
    try:
        spark = builder.getOrCreate()
    except Py4JJavaError as problem:
        refused = problem.java_exception
        if is_instance_of(SparkContext._gateway, refused, "java.lang.IllegalArgumentException"):
            raise EnvironmentProblem(f"Spark does not start: {refused.getMessage()}") from problem
        raise
    with suppress(Py4JError, TypeError):
        levels.core.config.Configurator.setLevel(where, levels.Level.ERROR)
    return spark


def _extensions() -> dict[str, str]:
    """Delta's extension of SQL beside those that the cluster's own configuration has."""
    given = SparkConf().get("spark.sql.extensions", "") or ""
    every = [name.strip() for name in given.split(",") if name.strip()]
    return {"spark.sql.extensions": ",".join(dict.fromkeys([*every, DELTA_SQL]))}


_UMASK = "spark.hadoop.fs.permissions.umask-mode"


def _umask() -> dict[str, str]:
    """The umask of this process for what Hadoop writes, whose own is 022 whatever the user's."""
    if SparkConf().get(_UMASK) is not None:
        return {}
    mask = os.umask(0o022)
    os.umask(mask)
    return {_UMASK: f"{mask:03o}"}


# No folder where the package is read from an archive (--py-files).
_PACKAGE = Path(__file__).resolve().parent
_DAEMON = "spark.python.daemon.module"


def _daemon(master: str | None) -> dict[str, str]:
    """Our own daemon for Python workers that are this machine's and run this Python, which has it."""
    conf = SparkConf()
    here = is_local(master or conf.get("spark.master", "local[*]") or "")
    theirs = os.environ["PYSPARK_PYTHON"] != sys.executable or conf.get(_DAEMON) is not None
    if not here or theirs or not _PACKAGE.is_dir():
        return {}
    return {_DAEMON: "prune_lib.worker_daemon"}


def is_local(master: str) -> bool:
    """Whether the driver runs all tasks itself."""
    return master == "local" or master.startswith("local[")


_LOG_PARTITIONS = "spark.databricks.delta.snapshotPartitions"
_BROADCAST = "spark.sql.autoBroadcastJoinThreshold"
_MEASURED_BROADCAST = "spark.sql.adaptive.autoBroadcastJoinThreshold"
_ADAPTIVE = "spark.sql.adaptive.enabled"
_ZONE = "spark.sql.session.timeZone"


@contextmanager
def measured_joins(spark: SparkSession, *, utc: bool = True) -> Iterator[None]:
    """Within it, Spark broadcasts a side of a join by its measured size, never by a guess.

    A settled frame has no statistics of its own, and Spark's guess from what it was made of can be a
    thousand times too small: a list counts as one element, the rows of a Python function as those that went
    in. By such a guess it sent all edges of a graph through the driver. Adaptive execution decides by the
    bytes of a shuffle that is done, up to the same threshold. It is turned on, also because without it a
    settled frame remembers how its rows were partitioned, by columns that it may no longer have; Spark's
    analysis of a join of such a frame with what it was made from ends in "conflicting references". Every
    job works within it, and so in UTC (`in_utc`; `utc` False leaves the zone). The session's settings come
    back at the end.
    """
    measured = spark.conf.get(_MEASURED_BROADCAST, None) or spark.conf.get(_BROADCAST, None) or "10MB"
    wanted = {_MEASURED_BROADCAST: measured, _BROADCAST: "-1", _ADAPTIVE: "true"}
    # A session that was there before us fetches rows one by one, a pattern-sized result with it.
    wanted[_ARROW] = _SETTINGS[_ARROW]
    with in_utc(spark) if utc else nullcontext(), configured(spark, wanted):
        yield


@contextmanager
def in_utc(spark: SparkSession) -> Iterator[None]:
    """Within it, times without a zone, days and times as text are those of UTC, whatever the session's zone.

    A session that was there before us has a zone of its own: the same input would have other days in it.
    """
    with configured(spark, {_ZONE: _SETTINGS[_ZONE]}):
        yield


@contextmanager
def configured(spark: SparkSession, wanted: Mapping[str, str]) -> Iterator[None]:
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


_shipped: set[str] = set()


def ship_package(spark: SparkSession) -> None:
    """Give this package to the Python workers, once: from a checkout they would not find it.

    Args:
        spark: the session.
    """
    context = spark.sparkContext
    if context.applicationId in _shipped:
        return
    package = _PACKAGE
    if not package.is_dir():
        # It came by --py-files, and so do the workers have it.
        _shipped.add(context.applicationId)
        return
    if is_local(str(context.master)):
        # The workers are this machine's: they read the package where it is, and keep there what they compile.
        if context.pythonExec == sys.executable:
            if not {"site-packages", "dist-packages"} & set(package.parts):
                paths = [str(package.parent), context.environment.get("PYTHONPATH", "")]
                context.environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
            _shipped.add(context.applicationId)
            return
    folder = Path(tempfile.mkdtemp(prefix="prune-lib-"))
    # Not prune_lib.zip, which a user may have given, too.
    archive = folder / "prune_lib_of_the_driver.zip"
    with zipfile.ZipFile(archive, "w") as out:
        for module in sorted(package.rglob("*.py")):
            out.write(module, Path(package.name) / module.relative_to(package))
    context.addPyFile(str(archive))
    # Executors fetch it when their first task comes, so it stays until the driver ends.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _shipped.add(context.applicationId)


def _is_connect(spark: SparkSession) -> bool:
    return type(spark).__module__.startswith("pyspark.sql.connect")


def _refuse_connect(remote: bool) -> None:
    if remote:
        raise EnvironmentProblem(
            "This is Spark Connect, as on serverless compute and in standard access mode: it has no JVM "
            "beside the driver, and GraphFrames and the training of experts need one. On Databricks take a "
            "job cluster in dedicated access mode; elsewhere unset SPARK_REMOTE."
        )


# What the JVM must have: a class to look for, and the Maven package that brings it.
NEEDED = {
    "Delta": (DELTA_SQL, "io.delta:delta-spark_2.12:3.3.3"),
    "GraphFrames": ("org.graphframes.GraphFrame", "io.graphframes:graphframes-spark3_2.12:0.10.1"),
}


def check_runtime(spark: SparkSession, *, only_reads: bool = False) -> None:
    """See that the JVM has what the job needs, before any work.

    Args:
        spark: the session.
        only_reads: the job reads tables and computes no graph; Delta's classes are enough.

    Raises:
        EnvironmentProblem: there is no JVM, Delta's or GraphFrames' classes are not on the class path, or the
            session was built without Delta's SQL and catalog.
    """
    _refuse_connect(_is_connect(spark))
    loader = spark._jvm.java.lang.Thread.currentThread().getContextClassLoader()  # type: ignore[union-attr]
    missing = []
    for name, (klass, _) in NEEDED.items():
        if only_reads and name != "Delta":
            continue
        try:
            loader.loadClass(klass)
        except Exception:  # py4j wraps ClassNotFoundException
            missing.append(name)
    if missing:
        packages = ",".join(NEEDED[name][1] for name in missing)
        raise EnvironmentProblem(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not on Spark's class path "
            f"(Spark {spark.version}). Run `make setup`, which puts the jars into the environment's own "
            f"Spark, or add `--packages {packages}` to spark-submit, or on a managed cluster install them "
            "as Maven libraries."
        )
    if not only_reads and not _knows_delta(spark):
        raise EnvironmentProblem(
            "This Spark session was started without Delta's SQL and catalog, which cannot be added to it any "
            "more. Start Spark by `prune_lib.get_spark()`, or with `--conf spark.sql.extensions="
            f"{DELTA_SQL} --conf {_CATALOG}={_SETTINGS[_CATALOG]}`."
        )
    _remember_names(spark)


def _knows_delta(spark: SparkSession) -> bool:
    """Whether a session's SQL and catalog are more than Spark's own; a vendor's have names of their own."""
    state: Any = spark._jsparkSession.sessionState()
    if state.catalogManager().v2SessionCatalog().getClass().getSimpleName() == "V2SessionCatalog":
        return False
    try:
        state.sqlParser().parsePlan("RESTORE TABLE delta.`/a/table` TO VERSION AS OF 0")
    except (Py4JError, PySparkException):
        return False
    return True
