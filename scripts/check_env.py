"""Proves that Spark, Delta and GraphFrames work together here: `spark-submit scripts/check_env.py`.

Writes and reads a small Delta table and sends one round of GraphFrames messages; prints one line.
"""

import platform
import shutil
import sys
import tempfile
import time
import warnings

import pyspark
from graphframes import GraphFrame
from graphframes.lib import AggregateMessages as Message
from pyspark.sql import SparkSession
from pyspark.sql import functions as F


def check_delta(spark: SparkSession, folder: str) -> None:
    """Writes a Delta table and reads its first version back by SQL that only Delta knows."""
    location = f"{folder}/delta"
    spark.range(3).write.format("delta").save(location)
    rows = spark.sql(f"SELECT * FROM delta.`{location}` VERSION AS OF 0").count()
    assert rows == 3, f"Delta gave {rows} rows back of 3"


def check_graphframes(spark: SparkSession) -> None:
    """Sums the neighbours' values on the path 1 - 2 - 3."""
    vertices = spark.createDataFrame([(1, 10), (2, 20), (3, 30)], "id BIGINT, x BIGINT")
    edges = spark.createDataFrame([(1, 2), (2, 3)], "src BIGINT, dst BIGINT")
    sums = GraphFrame(vertices, edges).aggregateMessages(
        F.sum(Message.msg).alias("x"), sendToSrc=Message.dst["x"], sendToDst=Message.src["x"]
    )
    found = {row["id"]: row["x"] for row in sums.collect()}
    assert found == {1: 20, 2: 40, 3: 20}, f"aggregateMessages gave {found}"


def check_python_workers(spark: SparkSession) -> None:
    """Asks a worker which Python it is: it must be the driver's, with the driver's packages."""
    worker = spark.sparkContext.parallelize([0], 1).map(lambda _: sys.prefix).first()
    assert worker == sys.prefix, f"the workers run in {worker}, the driver in {sys.prefix}"


def main() -> None:
    """Runs the checks and prints what was found."""
    started = time.monotonic()
    folder = tempfile.mkdtemp(prefix="check-env-")
    # Two partitions and no UI: the data are a handful of rows. Nothing stays in the user's folder.
    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.sql.shuffle.partitions", "2")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.warehouse.dir", folder)
        .getOrCreate()
    )
    try:
        check_delta(spark, folder)
        check_graphframes(spark)
        check_python_workers(spark)
        java = spark.sparkContext._jvm.System.getProperty("java.version")  # type: ignore[union-attr]
    finally:
        spark.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(
        f"works: Python {platform.python_version()}, Java {java}, Spark {pyspark.__version__}, "
        f"Delta read and write, GraphFrames aggregateMessages ({time.monotonic() - started:.0f} s)"
    )


if __name__ == "__main__":
    # GraphFrames' own notes to its developers.
    warnings.simplefilter("ignore")
    main()
