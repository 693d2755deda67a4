"""How much of a frame Spark lets its driver collect; a frame of more ends a job in a stack trace."""

from __future__ import annotations

import logging
import math
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

__all__ = ["beyond_results"]

_LOG = logging.getLogger(__name__)


def beyond_results(spark: SparkSession, wanted: int) -> str | None:
    """What to say where the driver would have to collect more than Spark lets it.

    Args:
        spark: the session.
        wanted: bytes that are to be collected.

    Returns:
        How many they are, what the limit is, and the flag that raises it; None where they are within it.
    """
    jvm: Any = spark._jvm
    given = spark.conf.get("spark.driver.maxResultSize", "1g")
    try:
        most = int(jvm.org.apache.spark.network.util.JavaUtils.byteStringAsBytes(given))
    except Py4JError as problem:  # a managed Spark may allow few calls
        _LOG.debug("no limit of results: %s", problem)
        return None
    if not 0 < most < wanted:
        return None
    return (
        f"{wanted / 2**30:.2g} GiB of rows the driver has to collect, and Spark lets it collect {given} "
        "(spark.driver.maxResultSize). Start the job with --conf "
        f"spark.driver.maxResultSize={math.ceil(wanted * 1.2 / 2**30)}g and a driver that has the memory"
    )
