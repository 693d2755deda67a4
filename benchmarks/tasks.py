"""What an empty Python task costs on Spark: what every small stage pays, however little it does.

    .venv/bin/spark-submit benchmarks/tasks.py
    .venv/bin/spark-submit --conf spark.python.daemon.module=pyspark.daemon benchmarks/tasks.py

The second without `prune_lib.worker_daemon`. Prints milliseconds a task and core: the median of some rounds,
and their range.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.session import get_spark  # noqa: E402

TASKS, ROUNDS = 200, 5


def nothing(batches: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
    """What a task does."""
    yield from batches


def main() -> None:
    """Measure, and print a line."""
    spark = get_spark("tasks")
    cores = spark.sparkContext.defaultParallelism
    tasks = spark.range(0, TASKS, 1, TASKS).mapInArrow(nothing, "id bigint")
    found = []
    for _ in range(ROUNDS + 1):
        started = time.monotonic()
        tasks.write.format("noop").mode("overwrite").save()
        found.append(1000 * cores * (time.monotonic() - started) / TASKS)
    daemon = spark.sparkContext.getConf().get("spark.python.daemon.module", "pyspark.daemon")
    spark.stop()
    # The first round starts the workers.
    rest = found[1:]
    print(f"{daemon}: {statistics.median(rest):.0f} ms a task and core ({min(rest):.0f} to {max(rest):.0f})")


if __name__ == "__main__":
    main()
