"""What can be set about a training of the experts: the model of its YAML file, environment and flags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from pydantic import Field

from prune_lib.experts.settings import TrainSettings
from prune_lib.locations import table_in_workspace
from prune_lib.settings.fields import (
    ItemColumn,
    OrderColumn,
    SessionColumn,
    Since,
    TimeColumn,
    Timestamp,
    Version,
)
from prune_lib.settings.groups import DemoSettings
from prune_lib.settings.job import JobSettings, JobText
from prune_lib.settings.rules import train_rules

__all__ = ["ExpertsSettings"]


class ExpertsSettings(JobSettings):
    """Settings of a training; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="train",
        usage="spark-submit jobs/train.py [flags], or: train-experts [flags]",
        description="Train the experts that score sessions, and keep them for the pruning runs to come.",
        script="jobs/train.py",
        listing="conf/train.yaml",
        example=("input", "shop.clicks"),
        headings={
            "input": "tables and models",
            "session_column": "columns of the input",
            "config": "the run",
        },
        interrupted="A bundle of experts is written at the end, whole or not at all.",
    )

    input: str | None = Field(
        default=None,
        min_length=1,
        description="Table to learn from, sessions or events: a name (schema.table) or a location, Delta or "
        "Parquet. Default: the workspace's `sessions`, made from demo data where there is none.",
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        description="Folder of the bundle. Default: a new one in the workspace's `experts`, where pruning "
        "runs on the same input look for it.",
    )
    register_as: str | None = Field(
        default=None,
        min_length=1,
        description="Name in MLflow's registry; each training becomes a version of it "
        "(prune --experts models:/name/version).",
    )
    alias: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9_\-]+$",
        examples=["champion"],
        description="Alias that the new version gets in the registry (prune --experts models:/name@alias).",
    )
    version: Version = None
    timestamp: Timestamp = None
    since: Since = None

    session_column: SessionColumn = None
    item_column: ItemColumn = None
    time_column: TimeColumn = None
    order_column: OrderColumn = None

    training: TrainSettings = Field(default=TrainSettings(), description="Training of the experts")
    demo: DemoSettings = Field(default=DemoSettings(), description="Demo data")

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Names that are none, times that are none, an alias of nothing."""
        return train_rules(values, origin)

    @property
    def resolved_input(self) -> str:
        """The input: what was given, or the workspace's `sessions`."""
        return self.input or table_in_workspace(self.workspace, "sessions")
