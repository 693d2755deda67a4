"""The session: what it ships, and what it refuses to start without."""

from __future__ import annotations

import pytest
from pyspark.sql import SparkSession

from prune_lib import session
from prune_lib.errors import EnvironmentProblem


def test_the_environment_has_delta_and_graphframes(spark: SparkSession) -> None:
    session.check_runtime(spark)


def test_a_missing_jar_is_named_with_what_to_do(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = {"Delta": session.NEEDED["Delta"], "GraphFrames": ("org.example.None", "a:b:1")}
    monkeypatch.setattr(session, "NEEDED", absent)
    with pytest.raises(
        EnvironmentProblem, match="GraphFrames is not on Spark's class path.*make setup.*a:b:1"
    ):
        session.check_runtime(spark)


def test_the_running_session_is_reused_and_workers_find_the_package(spark: SparkSession) -> None:
    assert session.get_spark("another") is spark
    found = spark.range(1).rdd.map(lambda _: __import__("prune_lib").__version__).collect()
    assert len(found) == 1
    assert any(name.endswith("prune_lib.zip") for name in spark.sparkContext._python_includes)


def test_the_clusters_own_extensions_stay(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    class Conf:
        def get(self, key: str, default: str) -> str:
            return "org.example.Theirs, " + session.DELTA_SQL

    monkeypatch.setattr(session, "SparkConf", Conf)
    assert session._extensions() == {"spark.sql.extensions": f"org.example.Theirs,{session.DELTA_SQL}"}
