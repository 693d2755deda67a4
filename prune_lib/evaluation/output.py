"""Where results go: Delta tables, MLflow, the document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from prune_lib.evaluation.data import Split
from prune_lib.evaluation.plan import Candidate, Plan, Row
from prune_lib.evaluation.results import metric_rows, summarise

if TYPE_CHECKING:
    from prune_lib.evaluation.job import Evaluation

__all__ = ["Report", "write_results"]


@dataclass(frozen=True)
class Report:
    """What an evaluation says at its end."""

    text: str

    def __str__(self) -> str:
        """The text for people."""
        return self.text


def write_results(
    run: Evaluation,
    split: Split,
    plan: Plan,
    validation: Split | None,
    tuning: Sequence[Row],
    how: dict[str, Candidate],
    seconds: float,
) -> Report:
    """Write the tables."""
    frames = []
    for part, rows in ((split, plan.rows), (validation, tuning)):
        if part is None or not rows:
            continue
        common = common_of(run, part)
        frames.append(metric_rows(rows, run.store, part.cases(), part.item_sessions(), common))
    values = pd.concat(frames, ignore_index=True)
    summary = summarise(plan.rows, run.store, split.cases(), split.item_sessions(), common_of(run, split))
    values.to_parquet(run.folder / "rows.parquet")
    summary.to_parquet(run.folder / "summary.parquet")
    return Report(summary.to_string())


def common_of(run: Evaluation, split: Split) -> dict[str, Any]:
    """Columns that all rows of a split share."""
    return {"data_set": run.settings.data_set, "split": split.folder.name, "data_hash": split.data_hash}
