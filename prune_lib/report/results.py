"""The curves of an evaluation on the input of a run, where there is one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pandas as pd
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.errors import InputError
from prune_lib.locations import companion, normalised, table_in_workspace
from prune_lib.report.facts import Facts, Measured
from prune_lib.sessions.opening import load_table

__all__ = ["METRIC", "measured"]

METRIC = "recall@20"
# The first of these that was measured: as many steps is what says most of the data.
_REGIMES = ("steps", "epochs", "tuned")


def measured(spark: SparkSession, facts: Facts, evaluation: str) -> Measured | None:
    """What an evaluation measured on the input of a run.

    Args:
        spark: the session.
        facts: the run.
        evaluation: the evaluation's table.

    Returns:
        Recall@20 over all test cases, of the test split where there is one; None where there is no
        evaluation of this input. Cost: two small tables are read.
    """
    try:
        runs = load_table(spark, companion(evaluation, "runs"))
        summary = load_table(spark, companion(evaluation, "summary"))
    except InputError:
        return None
    wanted = normalised(str(facts.run["input"]))
    here = [
        row
        for row in runs.select(
            "data_set", "split", "data_hash", "run_id", "settings", "finished_at"
        ).collect()
        if _input_of(json.loads(row["settings"])) == wanted
    ]
    if not here:
        return None
    row = max(here, key=lambda r: (r["split"] == "test", r["finished_at"]))
    found: pd.DataFrame = (
        summary.filter(
            (F.col("data_set") == row["data_set"])
            & (F.col("split") == row["split"])
            & (F.col("data_hash") == row["data_hash"])
            & (F.col("variant") == "")
            & (F.col("samples") == "positions")
            & (F.col("metric") == METRIC)
            & (F.col("band") == "all")
            & F.col("regime").isin(*_REGIMES)
        )
        .select("regime", "target", "method", "ratio", "mean", "low", "high", "seeds")
        .toPandas()
    )
    regimes = [regime for regime in _REGIMES if (found["regime"] == regime).any()]
    if not regimes:
        return None
    rows = found[found["regime"] == regimes[0]].drop(columns="regime")
    ordered = rows.sort_values(["target", "method", "ratio"]).reset_index(drop=True)
    return Measured(ordered, str(row["data_set"]), str(row["split"]), regimes[0], str(row["run_id"]))


def _input_of(settings: Mapping[str, Any]) -> str | None:
    """What an evaluation of these settings read; where none was given, what its workspace has.

    >>> _input_of({"input": None, "workspace": "/w"}), _input_of({"input": None})
    ('/w/sessions', None)
    """
    if settings.get("input"):
        return normalised(str(settings["input"]))
    if settings.get("workspace"):
        return normalised(table_in_workspace(str(settings["workspace"]), "sessions"))
    return None
