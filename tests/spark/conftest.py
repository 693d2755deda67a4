"""One Spark session for all Spark tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from prune_lib.session import get_spark
from tests.environment import own


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> Iterator[None]:
    """No test prunes by the settings, or writes to the MLflow, of whoever runs it."""
    with pytest.MonkeyPatch.context() as patched:
        for name in own(list(os.environ)):
            patched.delenv(name)
        yield


@pytest.fixture(scope="session")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkSession]:
    """Two cores, few partitions, no UI, a warehouse that goes away."""
    folder = tmp_path_factory.mktemp("spark")
    session = get_spark(
        "tests",
        master="local[2]",
        extra={
            # More than one partition, so that order-dependence shows; few, so that a test takes little.
            "spark.sql.shuffle.partitions": "4",
            "spark.default.parallelism": "2",
            # VACUUM looks at a folder in so many tasks: with 10,000, the default, for 98 s; so for 4 s.
            "spark.sql.sources.parallelPartitionDiscovery.parallelism": "4",
            "spark.ui.enabled": "false",
            # Thousands of small queries: compiling each to bytecode takes a fourth of the processor's time.
            # The jobs of tests/e2e run compiled, as a user's do, and both are held to the same numbers.
            "spark.sql.codegen.wholeStage": "false",
            "spark.sql.codegen.factoryMode": "NO_CODEGEN",
            # Each query is described for a UI that nobody looks at; this is the shortest way to.
            "spark.sql.ui.explainMode": "simple",
            "spark.driver.memory": "2g",
            "spark.sql.warehouse.dir": str(folder / "warehouse"),
            # The second compiler takes a third of the processor's time; the first one's code needs room.
            "spark.driver.extraJavaOptions": f"-Dderby.system.home={folder} -XX:TieredStopAtLevel=1 "
            "-XX:ReservedCodeCacheSize=240m",
        },
    )
    yield session
    session.stop()


@pytest.fixture(autouse=True, scope="module")
def _clear_caches(spark: SparkSession) -> Iterator[None]:
    """No test module reads what another one cached."""
    yield
    spark.catalog.clearCache()


@pytest.fixture(scope="module")
def compiled(spark: SparkSession) -> Iterator[None]:
    """Queries are compiled: interpreted, Spark 3.5 cannot list the tables of its catalog."""
    spark.conf.set("spark.sql.codegen.factoryMode", "FALLBACK")
    yield
    spark.conf.set("spark.sql.codegen.factoryMode", "NO_CODEGEN")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real data sets beside the project; tests that need them skip where they are absent."""
    folder = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data beside the project) are not on this machine")
    return folder
