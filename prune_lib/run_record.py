"""The record of a run: its counts, its row of the runs table, its entry in MLflow."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.decisions import Decided
from prune_lib.graph import SessionGraph
from prune_lib.popularity import gini
from prune_lib.sampling.rounds import RoundRecord
from prune_lib.sampling.select import Selection
from prune_lib.schemas import RUNS, column_type, conform
from prune_lib.sessions.encoding import Encoded
from prune_lib.sessions.opening import source_of
from prune_lib.sessions.reading import InputTable
from prune_lib.settings import PruneSettings, settings_hash
from prune_lib.stages import Stages
from prune_lib.summary import described
from prune_lib.tracking import tracked_run

__all__ = ["IN_COMMITS", "counts_of", "run_of", "run_row", "track"]


# What the commits of a run's tables say of it.
IN_COMMITS = ("run_id", "settings_hash", "input_version", "experts_version")


def counts_of(
    encoded: Encoded, graph: SessionGraph, decided: Decided, selection: Selection
) -> dict[str, Any]:
    """What a run kept: sessions, interactions, items, duplicates, reasons, its share of the objective.

    Returns:
        By column of the runs table. Cost: one pass over the sessions, one over the kept clicks.
    """
    sessions = decided.sessions
    groups = (
        sessions.groupBy("group")
        .agg(F.count(F.lit(1)).alias("all"), F.count_if("kept").alias("kept"))
        .agg(
            F.sum(F.col("all") - 1).alias("duplicates_before"),
            F.sum(F.greatest(F.col("kept") - 1, F.lit(0))).alias("duplicates_after"),
        )
        .first()
    )
    by_reason = (
        sessions.groupBy("reason", "kept")
        .agg(F.count(F.lit(1)).alias("n"), F.sum("n").alias("clicks"))
        .collect()
    )
    clicks_after = np.zeros(encoded.n_items, dtype=np.int64)
    kept_items = (
        sessions.filter("kept").select(F.explode("items").alias("idx")).groupBy("idx").count().toPandas()
    )
    clicks_after[kept_items["idx"].to_numpy()] = kept_items["count"].to_numpy()
    items_before = int((encoded.item_interactions > 0).sum())
    items_after = int((clicks_after > 0).sum())
    assert groups is not None
    return {
        "sessions_before": encoded.n_sessions,
        "sessions_after": sum(int(r["n"]) for r in by_reason if r["kept"]),
        "interactions_before": encoded.n_interactions,
        "interactions_after": sum(int(r["clicks"]) for r in by_reason if r["kept"]),
        "items_before": items_before,
        "items_after": items_after,
        "item_coverage": items_after / items_before,
        "gini_before": gini(encoded.item_interactions),
        "gini_after": gini(clicks_after),
        "duplicates_before": int(groups["duplicates_before"]),
        "duplicates_after": int(groups["duplicates_after"]),
        "objective": selection.objective.share(graph.evidence),
        "weight_error": decided.weights.error,
        "demand": graph.demand,
        "reasons": {str(r["reason"]): int(r["n"]) for r in by_reason},
    }


def run_of(
    spark: SparkSession,
    settings: PruneSettings,
    table: InputTable,
    experts_version: str | None,
    *,
    run_id: str,
    started: datetime,
    counts: Mapping[str, Any],
    rounds: Sequence[RoundRecord],
    stages: Stages,
) -> dict[str, Any]:
    """A run by column of the runs table; it ends now.

    Args:
        spark: the session.
        settings: the run's.
        table: its input.
        experts_version: of the bundle; None where no experts were asked.
        run_id: its id.
        started: when it began.
        counts: of `counts_of`.
        rounds: the sampler's record.
        stages: the stages so far.
    """
    return {
        "run_id": run_id,
        "started_at": started,
        # A clock that was put back would end the run before it began.
        "finished_at": max(started, datetime.now(timezone.utc)),
        "method": settings.method,
        "unit": settings.unit,
        "ratio": settings.ratio,
        "budget": settings.counted,
        "seed": settings.seed,
        "settings": settings.model_dump_json(),
        "settings_hash": settings_hash(settings),
        "input": source_of(table),
        "input_format": table.format,
        "input_version": table.version,
        "experts_version": experts_version,
        **counts,
        "stages": [(s.name, s.seconds, s.rows) for s in stages.done],
        "rounds": [astuple(record) for record in rounds],
        "warnings": stages.warnings,
        "versions": _versions(spark),
    }


def run_row(spark: SparkSession, run: Mapping[str, Any]) -> DataFrame:
    """A run as a frame of one row in the schema of the runs table."""
    schema = ", ".join(f"`{c.name}` {column_type(c, 'string', 'string')}" for c in RUNS)
    row = [run[c.name] for c in RUNS]
    return conform(spark.createDataFrame([row], schema), "runs", "string", "string")


def _versions(spark: SparkSession) -> dict[str, str]:
    found = {"python": platform.python_version(), "spark": spark.version}
    for name in ("prune-lib", "delta-spark", "graphframes-py", "numpy", "torch", "petastorm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def track(settings: PruneSettings, run: Mapping[str, Any], stages: Stages) -> None:
    """Log the run to MLflow where it is installed; what fails there never fails the run."""
    asked = ("method", "unit", "ratio", "budget", "seed", "input", "input_version", "experts_version")
    params = {k: run[k] for k in asked}
    numbers = {k: float(v) for k, v in run.items() if isinstance(v, int | float) and k not in params}
    with tracked_run(settings.workspace, "prune", run["run_id"], params) as tracker:
        tracker.metrics(numbers)
        churn = described(run).get("churn") or {}
        tracker.metrics({f"churn_{k}": float(v) for k, v in churn.items() if isinstance(v, int)})
        tracker.metrics({f"seconds_{s.name.replace(' ', '_')}": s.seconds for s in stages.done})
        tracker.dict(json.loads(run["settings"]), "settings.json")
    stages.warnings.extend(tracker.warnings)
