"""One short text for many rows, whatever their order or partitions."""

from __future__ import annotations

import hashlib

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

__all__ = ["fingerprint"]


def fingerprint(df: DataFrame, *columns: Column) -> str:
    """A hash of a frame's rows; 16 hexadecimal digits.

    Args:
        df: the rows.
        columns: what of them counts.

    Cost: a pass over the rows.
    """
    # As decimals: a sum of BIGINT hashes overflows, and under ANSI mode that is an error.
    row = df.agg(
        F.sum(F.xxhash64(*columns).cast("decimal(38,0)")).alias("sum"), F.count("*").alias("n")
    ).first()
    assert row is not None
    return hashlib.sha256(f"{row['sum']}/{row['n']}".encode()).hexdigest()[:16]
