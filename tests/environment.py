"""Variables of whoever runs the tests that must reach none: their settings, and their MLflow."""

from __future__ import annotations

from collections.abc import Iterable

#: What the variables of our jobs begin with.
JOBS = ("PRUNE_", "TRAIN_", "INGEST_", "EXPLAIN_", "REPORT_", "EVALUATE_")


def own(names: Iterable[str]) -> list[str]:
    """Of the names of variables those that decide what a job does, or where its runs are tracked.

    >>> own(["PATH", "PRUNE_RATIO", "MLFLOW_TRACKING_URI"])
    ['PRUNE_RATIO', 'MLFLOW_TRACKING_URI']
    """
    return [name for name in names if name.startswith((*JOBS, "MLFLOW_"))]
