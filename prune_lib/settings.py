"""What can be set: one model is the YAML file, the environment, the flags and their help.

`load_settings` reads all three (flags win over environment, over file, over defaults) and reports
every mistake at once; the model itself can be built in a program: `PruneSettings(ratio=0.1)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prune_lib.experts.settings import TrainSettings
from prune_lib.locations import companion, is_location, table_in_workspace
from prune_lib.settings_rules import between_fields

__all__ = [
    "DemoSettings",
    "PropagationSettings",
    "PruneSettings",
    "SamplingSettings",
    "TrainSettings",
    "companion",
    "is_location",
    "load_settings",
    "settings_hash",
    "table_in_workspace",
]

_STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

# Do not decide what comes out: where things lie, how the job is run.
_NOT_HASHED: Any = {
    **dict.fromkeys(("output", "workspace", "config", "device", "dry_run", "verbose"), True),
    "training": {"device"},
}


class SamplingSettings(BaseModel):
    """How sessions are sampled: the objective's weights and the rounds."""

    model_config = _STRICT

    kappa: float = Field(
        default=0.5,
        ge=-10,
        le=10,
        description="Strength of difficulty: keys are multiplied by exp(-kappa x difficulty rank). Above 0 "
        "easier sessions go first, below 0 harder ones; 0 leaves difficulty out.",
    )
    item_exponent: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Weight of a target item: its recency-weighted count to this power. Smaller "
        "favours cold items.",
    )
    transition_exponent: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of a transition: its leave-one-out count to this power.",
    )
    half_life: float = Field(
        default=0.5,
        gt=0,
        description="Recency: a session counts exp(-age / half_life), age 0 for the newest and 1 for the "
        "oldest. Large values weigh all sessions alike.",
    )
    lambda_items: float = Field(
        default=1.0,
        ge=0,
        description="Weight of all target items together, beside 1 for all transitions.",
    )
    max_distance: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Clicks, at most, between the two items of a transition.",
    )
    sampler: Literal["auto", "exact", "rounds"] = Field(
        default="auto",
        description="exact: sequential lazy greedy in one task; rounds: distributed greedy in rounds; auto: "
        "exact up to `exact_edges`, else rounds.",
    )
    exact_edges: int = Field(
        default=5_000_000,
        ge=0,
        description="Largest number of session-pattern edges that one task samples (about 40 bytes each).",
    )
    epsilon: float = Field(
        default=0.5, gt=0, description="Rounds: evidence that a pattern admits in one round."
    )
    rho: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Rounds: threshold of a round as a share of the largest known key.",
    )
    delta: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Rounds: a pattern that supplies at least this share of a session's gain can "
        "hold it back.",
    )
    max_rounds: int = Field(default=200, ge=1, description="Rounds: so many at most.")
    max_patterns: int = Field(
        default=64_000_000,
        ge=1,
        lt=2**31,
        description="Largest number of patterns whose state is broadcast (about 20 bytes each).",
    )


class PropagationSettings(BaseModel):
    """How difficulty spreads over the session graph before sampling."""

    model_config = _STRICT

    alpha: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of the neighbourhood in a session's new difficulty.",
    )
    rounds: int = Field(default=1, ge=0, le=100, description="Rounds of propagation; 0 for none.")


class DemoSettings(BaseModel):
    """The built-in data set that is generated where the workspace has no sessions."""

    model_config = _STRICT

    sessions: int = Field(default=20_000, ge=2, description="Sessions of the demo data set.")


class PruneSettings(BaseModel):
    """Settings of a pruning run; frozen, unknown keys are refused.

    A field's description is the help of its flag. Groups (`sampling`, `propagation`, `training`,
    `demo`) are nested keys in the YAML file, `--group-key` on the command line, `PRUNE_GROUP__KEY`
    in the environment.
    """

    model_config = _STRICT

    ratio: float = Field(gt=0, le=1, description="Share of the data to keep, in (0, 1].")
    budget: Literal["interactions", "sessions"] = Field(
        default="interactions",
        description="What the ratio counts: interactions (clicks: what storage and training cost) "
        "or sessions (rows).",
    )
    method: Literal["graph", "random", "hardest", "easiest", "moderate", "ccs", "item-quota", "recent"] = (
        Field(
            default="graph",
            description="How sessions are chosen: graph is ours, the others are baselines.",
        )
    )
    floor: int = Field(
        default=0,
        ge=0,
        description="Every item that has at least this many sessions keeps at least this many (method "
        "graph). 0 for no floor: covering every item eats the budget (at 10%, a floor of 1 costs 2.7 points "
        "of Recall@20 on yoochoose and 4.6 on diginetica).",
    )
    seed: int = Field(
        default=0,
        ge=0,
        lt=2**31,
        description="Seed of every random choice of the selection (training.seed is that of the experts).",
    )

    input: str | None = Field(
        default=None,
        min_length=1,
        description="Table to prune, sessions or events: a name (schema.table) or a location, Delta or "
        "Parquet. Default: the workspace's `sessions`, made from demo data where there is none.",
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        description="Delta table of what is kept: a name or a location. Beside it come <output>_decisions, "
        "<output>_items and <output>_runs. Default: the workspace's `pruned`.",
    )
    version: int | None = Field(
        default=None,
        ge=0,
        description="Delta version of the input; default: the newest, pinned at the start.",
    )
    timestamp: str | None = Field(
        default=None,
        min_length=1,
        description="The input as it was at this time (UTC), such as 2026-11-01 or '2026-11-01 12:00:00'.",
    )

    session_column: str | None = Field(
        default=None, min_length=1, description="Column of the session id; default: found."
    )
    item_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the item id (events) or of the array of items (sessions); default: found.",
    )
    time_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column of the time, or of the array of times; default: found.",
    )
    order_column: str | None = Field(
        default=None,
        min_length=1,
        description="Column that ranks sessions from old to new where there are no times; default: none.",
    )

    experts: str | None = Field(
        default=None,
        min_length=1,
        description="Trained experts: a bundle's folder, or a model of MLflow's registry "
        "(models:/name/version, models:/name@alias). Default: the workspace's newest for this input, trained "
        "first where there are none.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the experts run; auto: the GPU where the task has one."
    )
    batch_size: int = Field(
        default=2048, ge=16, description="Padded positions that go through the experts at a time."
    )

    config: str | None = Field(default=None, min_length=1, description="YAML file of settings.")
    workspace: str = Field(
        default="./workspace",
        min_length=1,
        description="Where tables, experts and tracking lie by default: a folder, or catalog.schema.",
    )
    dry_run: bool = Field(
        default=False,
        description="Check settings, tables, columns and experts, print the plan, compute nothing.",
    )
    verbose: bool = Field(default=False, description="More log lines; full traces of failures on stderr.")

    sampling: SamplingSettings = Field(default=SamplingSettings(), description="Sampling")
    propagation: PropagationSettings = Field(default=PropagationSettings(), description="Propagation")
    training: TrainSettings = Field(default=TrainSettings(), description="Training of the experts")
    demo: DemoSettings = Field(default=DemoSettings(), description="Demo data")

    @model_validator(mode="before")
    @classmethod
    def _train_where_scored(cls, values: Any) -> Any:
        """Experts are trained where they run, unless the group `training` says otherwise."""
        if not isinstance(values, dict) or "device" not in values:
            return values
        training = values.get("training", {})
        if isinstance(training, dict) and "device" not in training:
            return {**values, "training": {**training, "device": values["device"]}}
        return values

    @model_validator(mode="after")
    def _agree(self) -> PruneSettings:
        problems = between_fields(self.model_dump(), lambda key: f"`{key}`")
        if problems:
            raise ValueError(" ".join(problems))
        return self

    @property
    def resolved_input(self) -> str:
        """The input: what was given, or the workspace's `sessions`."""
        return self.input or table_in_workspace(self.workspace, "sessions")

    @property
    def resolved_output(self) -> str:
        """The output: what was given, or the workspace's `pruned`."""
        return self.output or table_in_workspace(self.workspace, "pruned")

    def settings_json(self) -> str:
        """All settings as JSON, keys sorted."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


def settings_hash(settings: PruneSettings) -> str:
    """SHA-256 of the canonical JSON of the settings that decide the result.

    Where things lie and how the job is run (output, workspace, config, device, dry_run, verbose) is
    left out. 64 hexadecimal digits.
    """
    decide = settings.model_dump(mode="json", exclude=_NOT_HASHED)
    text = json.dumps(decide, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def load_settings(
    argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None
) -> PruneSettings:
    """Settings of a run: flags over environment over the file of --config over defaults.

    Args:
        argv: arguments without the program's name; None for this process's own.
        environ: environment; None for this process's own.

    Raises:
        SettingsError: every mistake at once, each with its value, where it came from and the fix.
        SystemExit: --help was printed.
    """
    from prune_lib.settings_sources import read_sources

    values = read_sources(PruneSettings, argv, environ, between_fields)
    return PruneSettings.model_validate(values)
