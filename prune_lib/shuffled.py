"""How many bytes Spark's shuffles wrote, between two looks."""

from __future__ import annotations

import logging

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

__all__ = ["ShuffleMeter"]

_LOG = logging.getLogger(__name__)


class ShuffleMeter:
    """Counts the shuffle bytes of all stages since it was made, or since it was last read.

    Spark's driver keeps these numbers for its UI, with or without one. A managed Spark may refuse to show
    them; then there are none.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._jvm_context = spark.sparkContext._jsc.sc()
        self._next: int | None = None
        try:
            self._next = self._stages()
        except Py4JError as problem:
            _LOG.debug("no shuffle bytes: %s", problem)

    def _stages(self) -> int:
        """Number of stages so far."""
        return int(self._jvm_context.dagScheduler().nextStageId())

    def bytes(self) -> int | None:
        """Bytes that shuffles wrote since the last call; None where Spark does not tell.

        Cost: a call to the driver's store for every stage since, a fraction of a millisecond.
        """
        if self._next is None:
            return None
        total, last = 0, self._next
        try:
            self._jvm_context.listenerBus().waitUntilEmpty()
            store, last = self._jvm_context.statusStore(), self._stages()
            for stage in range(self._next, last):
                try:
                    total += int(store.lastStageAttempt(stage).shuffleWriteBytes())
                except Py4JJavaError:  # never ran, or no longer kept
                    continue
        except Py4JError as problem:
            _LOG.debug("no shuffle bytes: %s", problem)
            self._next = None
            return None
        self._next = last
        return total
