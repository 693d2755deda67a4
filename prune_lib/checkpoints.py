"""Where intermediate results lie during a run: on the executors, or where no executor takes them along."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from prune_lib.session import is_local
from prune_lib.tables import check_writable

__all__ = ["checkpoints", "loses_executors"]

_LOG = logging.getLogger(__name__)

# What a run that was killed has left is removed by a later one, when no run can still be at work on it. The
# folder may be anybody's: nothing is touched in it but what has a name of ours.
_STALE_SECONDS = 3 * 86_400
_OURS = re.compile(r"prune-[0-9a-f]{32}")


def loses_executors(master: str) -> bool:
    """Whether executors are processes of their own, which can end before the run does.

    >>> [loses_executors(m) for m in ("local[2]", "local", "local-cluster[2,1,1024]", "spark://host:7077")]
    [False, False, True, True]
    """
    return not is_local(master)


@contextmanager
def checkpoints(spark: SparkSession, folder: str | None) -> Iterator[None]:
    """Within it, settled frames are written to a folder and survive the loss of an executor.

    Args:
        spark: the session; where its user has set a checkpoint folder already, that one stays.
        folder: which driver and executors share; None leaves settled frames on the executors.

    What was written is removed at the end, and the folder, if it was not there before.

    Raises:
        OutputError: the folder cannot be written.
    """
    context = spark.sparkContext
    if folder is None or context.getCheckpointDir():
        yield
        return
    check_writable(spark, folder, "The folder of checkpoints", "--checkpoints")
    jvm: Any = spark._jvm
    place = jvm.org.apache.hadoop.fs.Path(folder)
    files = place.getFileSystem(context._jsc.hadoopConfiguration())
    new = not files.exists(place)
    if not new:
        _sweep(files, place)
    own = jvm.org.apache.hadoop.fs.Path(place, f"prune-{uuid.uuid4().hex}")
    context.setCheckpointDir(own.toString())
    try:
        yield
    finally:
        # There is no call that takes the folder back, and frames settled later must not lie in it.
        getattr(context._jsc.sc(), "checkpointDir_$eq")(jvm.scala.Option.empty())
        try:
            files.delete(own, True)
            if new and not files.listStatus(place):
                files.delete(place, False)
        except Py4JError as problem:
            _LOG.debug("checkpoints stay in %s: %s", own.toString(), problem)


def _sweep(files: Any, place: Any) -> None:
    """Remove what runs that were killed have left."""
    for entry in files.listStatus(place):
        if not (entry.isDirectory() and _OURS.fullmatch(entry.getPath().getName())):
            continue
        # Spark's folder in it grows while a run is at work.
        times = [part.getModificationTime() for part in (entry, *files.listStatus(entry.getPath()))]
        if time.time() - max(times) / 1000 > _STALE_SECONDS:
            files.delete(entry.getPath(), True)
