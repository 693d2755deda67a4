"""Dense indices and running totals against pandas, whatever the partitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from prune_lib.ordering import with_dense_index, with_running_total


@pytest.mark.parametrize("partitions", [1, 3, 8, 64])
@pytest.mark.parametrize("adaptive", ["true", "false"])
def test_index_and_total_equal_pandas(spark: SparkSession, partitions: int, adaptive: str) -> None:
    rng = np.random.default_rng(partitions)
    table = pd.DataFrame(
        # Few values of `a`: the order hangs on `b`; a null sorts first.
        {"a": rng.integers(0, 4, 500), "b": rng.permutation(500), "v": rng.integers(-5, 50, 500)}
    )
    before = spark.conf.get("spark.sql.adaptive.enabled")
    spark.conf.set("spark.sql.adaptive.enabled", adaptive)
    try:
        df = spark.createDataFrame(table).repartition(partitions)
        index = with_dense_index(df, ["a", "b"], name="k", start=1).toPandas()
        total = with_running_total(df, ["a", "b"], "v", "run").toPandas()
    finally:
        spark.conf.set("spark.sql.adaptive.enabled", before)
    table = table.sort_values(["a", "b"])
    index = index.sort_values(["a", "b"])
    total = total.sort_values(["a", "b"])
    assert index["k"].tolist() == list(range(1, 501))
    assert total["run"].tolist() == table["v"].cumsum().tolist()


def test_an_empty_frame_has_no_index(spark: SparkSession) -> None:
    empty = spark.createDataFrame([], "a int, v int")
    assert with_dense_index(empty, ["a"]).count() == 0
    assert with_running_total(empty, ["a"], "v", "run").count() == 0
