"""What Spark's stages did, between two looks."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark.sql import SparkSession

__all__ = ["StageMeter"]

_LOG = logging.getLogger(__name__)


class StageMeter:
    """Sums over all stages since it was made, or since it was last read.

    Spark's driver keeps these numbers for its UI, with or without one. A managed Spark may refuse to show
    them; then there are none.
    """

    def __init__(self, spark: SparkSession) -> None:
        self._jvm_context = spark.sparkContext._jsc.sc()
        self._next: int | None = None
        try:
            self._next = self._stages()
        except Py4JError as problem:
            _LOG.debug("no numbers of stages: %s", problem)

    def _stages(self) -> int:
        """Number of stages so far."""
        return int(self._jvm_context.dagScheduler().nextStageId())

    def shuffle_bytes(self) -> int | None:
        """Bytes that shuffles wrote since the last reading; None where Spark does not tell."""
        sums = self.sums(lambda stage: {"bytes": stage.shuffleWriteBytes()})
        return None if sums is None else sums.get("bytes", 0)

    def sums(self, numbers: Callable[[Any], Mapping[str, int]]) -> Mapping[str, int] | None:
        """Sums since the last reading, none where no stage ran; None where Spark does not tell.

        Args:
            numbers: what to sum, of a stage (Spark's `StageData`, a Java object).

        Cost: a few calls to the driver's store for every stage since, a fraction of a millisecond each.
        """
        if self._next is None:
            return None
        total: Counter[str] = Counter()
        try:
            for found in self._since(self._next, numbers):
                total.update(found)
        except Py4JError as problem:
            _LOG.debug("no numbers of stages: %s", problem)
            self._next = None
            return None
        return total

    def _since(self, first: int, numbers: Callable[[Any], Mapping[str, int]]) -> Iterator[Mapping[str, int]]:
        self._jvm_context.listenerBus().waitUntilEmpty()
        store, self._next = self._jvm_context.statusStore(), self._stages()
        for stage in range(first, self._next):
            try:
                yield numbers(store.lastStageAttempt(stage))
            except Py4JJavaError:  # never ran, or no longer kept
                continue
