"""The session: what it ships, and what it refuses to start without."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from py4j.java_gateway import JVMView
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

import prune_lib
from prune_lib import session
from prune_lib.errors import EnvironmentProblem
from prune_lib.stages import Stages


def test_the_environment_has_delta_and_graphframes(spark: SparkSession) -> None:
    session.check_runtime(spark)


def test_a_missing_jar_is_named_with_what_to_do(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"Delta": session.NEEDED["Delta"], "GraphFrames": ("org.example.None", "a:b:1")}
    monkeypatch.setattr(session, "NEEDED", absent)
    with pytest.raises(
        EnvironmentProblem, match="GraphFrames is not on Spark's class path.*make setup.*a:b:1"
    ):
        session.check_runtime(spark)
    session.check_runtime(spark, only_reads=True)  # which takes no graph


@pytest.mark.parametrize("lacks", ["spark.sql.extensions", "spark.sql.catalog.spark_catalog"])
def test_a_session_without_deltas_sql_is_refused_before_any_work(spark: SparkSession, lacks: str) -> None:
    """As a notebook's own, started with the jars alone: it would fail at the first commit."""
    jvm: Any = spark._jvm
    conf = spark.sparkContext._jsc.sc().conf()
    given = conf.get(lacks)
    conf.remove(lacks)
    try:
        java = jvm.SparkSession(spark.sparkContext._jsc.sc(), {})
        if lacks == "spark.sql.catalog.spark_catalog":  # all sessions have it of the first
            java.conf().unset(lacks)
        jvm.SparkSession.setActiveSession(java)
        plain: Any = SimpleNamespace(_jvm=spark._jvm, _jsparkSession=java, version=spark.version)
        with pytest.raises(EnvironmentProblem, match=r"without Delta's SQL and catalog.*get_spark.*--conf"):
            session.check_runtime(plain)
    finally:
        jvm.SparkSession.setActiveSession(spark._jsparkSession)
        conf.set(lacks, given)


def test_an_expression_asks_the_jvm_for_no_name_again(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each such question goes through all jars of the class path."""
    asked: list[str] = []
    ask = JVMView.__getattr__

    def counted(view: JVMView, name: str) -> Any:
        asked.append(name)
        return ask(view, name)

    monkeypatch.setattr(JVMView, "__getattr__", counted)
    F.coalesce(F.col("a") + F.lit(1), F.array(F.col("b"))[0]).alias("c")
    assert spark.createDataFrame([(1,)], "a int").select("a").columns == ["a"]
    assert "functions" not in asked and "PythonUtils" not in asked and "org" not in asked


def test_workers_of_this_machine_are_forked_by_our_own_daemon(spark: SparkSession) -> None:
    def tell(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        import gc

        import psutil

        parent = " ".join(psutil.Process(os.getppid()).cmdline())
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"parent": [parent], "kept": [gc.get_freeze_count()]})

    asked = spark.range(0, 8, 1, 8).mapInArrow(tell, "parent string, kept bigint")
    found = [*asked.collect(), *asked.collect()]
    assert len(found) == 16
    assert all("prune_lib.worker_daemon" in row["parent"] and row["kept"] > 1000 for row in found)


@pytest.mark.parametrize(
    ("master", "python", "set_already", "ours"),
    [
        ("local[2]", sys.executable, None, True),
        ("local", sys.executable, None, True),
        ("local[2]", "/usr/bin/python3", None, False),
        ("local[2]", sys.executable, "their.daemon", False),
        ("local-cluster[2,1,1024]", sys.executable, None, False),
        ("spark://host:7077", sys.executable, None, False),
        ("yarn", sys.executable, None, False),
    ],
)
def test_other_workers_have_the_daemon_that_they_know(
    monkeypatch: pytest.MonkeyPatch, master: str, python: str, set_already: str | None, ours: bool
) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", python)
    given = {} if set_already is None else {session._DAEMON: set_already}
    monkeypatch.setattr(session, "SparkConf", lambda: given)
    assert session._daemon(master) == ({session._DAEMON: "prune_lib.worker_daemon"} if ours else {})
    # From --py-files: the daemon starts before the workers are told of them.
    monkeypatch.setattr(session, "_PACKAGE", Path("/somewhere/prune_lib.whl/prune_lib"))
    assert session._daemon(master) == {}


def test_spark_connect_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    # Serverless compute of Databricks, and clusters in standard access mode.
    remote = type("SparkSession", (), {"__module__": "pyspark.sql.connect.session"})()
    with pytest.raises(EnvironmentProblem, match="This is Spark Connect.*dedicated access mode"):
        session.check_runtime(remote)
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: remote)
    with pytest.raises(EnvironmentProblem, match="This is Spark Connect"):
        session.get_spark("remote")
    monkeypatch.setattr(SparkSession, "getActiveSession", lambda: None)
    monkeypatch.setenv("SPARK_REMOTE", "sc://localhost")
    with pytest.raises(EnvironmentProblem, match="This is Spark Connect.*unset SPARK_REMOTE"):
        session.get_spark("remote")


def test_sparks_ui_shows_jobs_under_their_stage(spark: SparkSession) -> None:
    context = spark.sparkContext

    def last_description() -> str | None:
        spark.range(3).count()
        jobs = context._jsc.sc().statusStore().jobsList(None)
        newest = max((jobs.apply(k) for k in range(jobs.size())), key=lambda job: job.jobId())
        found = newest.description()
        return str(found.get()) if found.isDefined() else None

    context.setLocalProperty("spark.job.description", "the notebook's own")
    try:
        stages = Stages()
        with stages.stage("sampling"):
            assert last_description() == "the notebook's own: sampling"
        assert last_description() == "the notebook's own"
        with pytest.raises(ZeroDivisionError), stages.stage("sampling"):
            raise ZeroDivisionError
        assert last_description() == "the notebook's own"
    finally:
        context.setLocalProperty("spark.job.description", None)
    with stages.stage("items"):
        assert last_description() == "items"
    assert last_description() != "items"


def test_the_alert_of_the_databricks_bundle_sees_coverage_fall(spark: SparkSession) -> None:
    file = Path(__file__).resolve().parents[2] / "conf" / "resources" / "alerts.yml"
    alert = yaml.safe_load(file.read_text())["resources"]["alerts"]["coverage"]
    query = re.sub(r"FROM \S+_runs", "FROM runs_of_alert", alert["query_text"])

    def asked(*coverages: float) -> float:
        rows = [(c, datetime(2026, 11, day + 1)) for day, c in enumerate(coverages)]
        frame = spark.createDataFrame(rows, "item_coverage double, finished_at timestamp")
        frame.createOrReplaceTempView("runs_of_alert")
        return float(spark.sql(query).first()[alert["evaluation"]["source"]["name"]])

    assert asked() == asked(0.5) == 1  # no run, and a first one
    limit = alert["evaluation"]["threshold"]["value"]["double_value"]
    assert asked(0.1, 0.6, 0.6, 0.61, 0.58) > limit
    assert asked(0.6, 0.6, 0.61, 0.5) == pytest.approx(0.5 / 0.6) and 0.5 / 0.6 < limit


def test_the_running_session_is_reused_and_workers_find_the_package(spark: SparkSession) -> None:
    assert session.get_spark("another") is spark
    (found,) = spark.range(1).rdd.map(lambda _: __import__("prune_lib").__file__).collect()
    # On one machine they read it where it is: what they compile is kept beside it, not once a session.
    assert found == prune_lib.__file__
    assert not any("prune_lib" in name for name in spark.sparkContext._python_includes)


def test_what_came_by_py_files_is_not_shipped_again(
    spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An archive of the same name would be refused, and one of ours would be empty."""
    monkeypatch.setattr(session, "_PACKAGE", Path("/somewhere/prune_lib.zip/prune_lib"))
    monkeypatch.setattr(session, "_shipped", set())
    session.ship_package(spark)
    assert session._shipped == {spark.sparkContext.applicationId}
    assert not any("prune_lib" in name for name in spark.sparkContext._python_includes)


def test_a_guess_of_a_frames_size_broadcasts_nothing(spark: SparkSession) -> None:
    """Eight rows become two million: Spark's guess is eight rows, and a join would send all to the driver."""
    rows = spark.range(8).mapInArrow(two_to_the_18_each, "id bigint")
    other = spark.range(10**6).withColumn("v", F.lit(1))
    keys = (session._BROADCAST, session._MEASURED_BROADCAST, session._ADAPTIVE)
    before = {key: spark.conf.get(key, None) for key in keys}

    def plan() -> str:
        joined = other.join(rows, "id")
        joined.count()
        return str(joined._jdf.queryExecution().toString())

    assert "BroadcastHashJoin" in plan(), "the guess that the setting is there for"
    with pytest.raises(ZeroDivisionError), session.measured_joins(spark):
        assert "BroadcastHashJoin" not in plan()
        small = other.join(spark.range(10).repartition(2), "id")
        small.collect()
        assert "BroadcastHashJoin" in str(small._jdf.queryExecution().toString()), "measured small"
        raise ZeroDivisionError
    assert before == {key: spark.conf.get(key, None) for key in before}


def two_to_the_18_each(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    for batch in batches:
        for start in batch.column(0).to_pylist():
            yield pa.RecordBatch.from_arrays([pa.array(np.arange(2**18) + start * 2**18)], names=["id"])


def test_what_spark_writes_keeps_to_the_umask(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.umask(0o027)
    try:
        assert session._umask() == {"spark.hadoop.fs.permissions.umask-mode": "027"}
        assert os.umask(0o027) == 0o027, "asking does not change it"
    finally:
        os.umask(before)
    monkeypatch.setattr(session.SparkConf, "get", lambda *_: "007")
    assert session._umask() == {}, "the user's own stays"


def test_the_clusters_own_extensions_stay(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    class Conf:
        def get(self, key: str, default: str) -> str:
            return "org.example.Theirs, " + session.DELTA_SQL

    monkeypatch.setattr(session, "SparkConf", Conf)
    assert session._extensions() == {"spark.sql.extensions": f"org.example.Theirs,{session.DELTA_SQL}"}
