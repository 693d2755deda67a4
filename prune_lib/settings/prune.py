"""What can be set about a pruning run: one model is the YAML file, the environment, the flags and their help.

`load_settings` reads all three (flags win over environment, over file, over defaults) and reports
every mistake at once; the model itself can be built in a program: `PruneSettings(ratio=0.1)`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prune_lib.experts.settings import DYNAMICS, WHERE, Score, TrainSettings
from prune_lib.locations import is_location, table_in_workspace
from prune_lib.settings.fields import (
    BatchSize,
    Device,
    Distinct,
    ItemColumn,
    Method,
    OrderColumn,
    SessionColumn,
    Share,
    Since,
    TimeColumn,
    Timestamp,
    Version,
)
from prune_lib.settings.job import SAYING, JobText, PipelineSettings
from prune_lib.settings.rules import prune_rules

__all__ = ["PruneSettings", "load_settings", "settings_hash"]

# Do not decide what comes out: where things lie, how the job is run.
_RUNNING = (
    "output",
    "workspace",
    "config",
    "device",
    "checkpoints",
    "reuse_scores",
    "report",
    "dry_run",
    *SAYING,
)
_NOT_HASHED: Any = {**dict.fromkeys(_RUNNING, True), "training": {"device"}}
# Where experts are trained, as it was once part of the hash.
_WHERE = TrainSettings().model_dump(mode="json", include=set(WHERE) - {"device"})


class PruneSettings(PipelineSettings):
    """Settings of a pruning run; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="prune",
        usage="spark-submit jobs/prune.py --ratio R [flags], or: prune --ratio R [flags]",
        description="Keep the share of a data set of sessions from which a recommender learns most.",
        script="jobs/prune.py",
        listing="conf/default.yaml",
        example=("ratio", "0.1"),
        headings={
            "ratio": "what to keep",
            "input": "tables",
            "session_column": "columns of the input",
            "experts": "experts",
            "checkpoints": "on a cluster",
            "config": "the run",
        },
        interrupted="A run replaces its tables at its end, all of them or none.",
    )

    ratio: Share = Field(description="Share of the data to keep, in (0, 1].", examples=[0.1])
    budget: Literal["interactions", "sessions"] = Field(
        default="interactions",
        description="What the ratio counts: interactions (clicks: what storage and training cost) "
        "or sessions (rows).",
    )
    method: Method = Field(
        default="graph",
        description="How sessions are chosen: graph is ours, the others are baselines.",
    )
    unit: Literal["session", "prefix"] = Field(
        default="session",
        description="What is chosen: whole sessions; or prefixes, every i_1 ... i_t -> i_t+1 a sample of its "
        "own. Then the ratio is that of all samples, and the pruned table has a row (events: its clicks) for "
        "each kept sample, cut after its target.",
    )
    floor: int = Field(
        default=0,
        ge=0,
        description="Every item that has at least this many sessions keeps at least this many (method "
        "graph). 0 for no floor: covering every item eats the budget (at 10%, a floor of 1 costs a GRU4Rec "
        "5.1 points of Recall@20 on yoochoose; at 30%, nothing).",
    )
    floor_by: Distinct[Annotated[str, Field(pattern=r"^.+:[1-9][0-9]*$", examples=["category:5"])]] = Field(
        default=(),
        description="Every value of a column keeps so many sessions, or all that it has (method graph): "
        "category:5. Columns are the input's own; also band, the popularity of a session's items (cold, mid, "
        "popular), and hour, day, week or month of its last click.",
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
    version: Version = None
    timestamp: Timestamp = None
    since: Since = None

    report: bool = Field(
        default=False,
        description="Write the report at the end: one HTML page, where `jobs/report.py` puts it by default.",
    )

    session_column: SessionColumn = None
    item_column: ItemColumn = None
    time_column: TimeColumn = None
    order_column: OrderColumn = None

    experts: str | None = Field(
        default=None,
        min_length=1,
        description="Trained experts: a bundle's folder, or a model of MLflow's registry "
        "(models:/name/version, models:/name@alias). Default: the workspace's newest that was trained on "
        "this input by these settings of training; trained first where there is none.",
    )
    score: Score = Field(
        default="nll",
        description="What difficulty is, a mean over a session's positions: the mixture's negative "
        "log-likelihood, adjusted for the target's popularity (nll) or not (nll-raw); EL2N, margin or "
        "entropy of its prediction; the experts' disagreement; or forgetting or variability over the epochs "
        "of their training. Higher is harder in all of them.",
    )
    reuse_scores: bool = Field(
        default=True,
        description="Sessions that the same experts scored before are not scored again: their scores are "
        "taken from the workspace's table `scores`, and new ones kept there. It changes nothing else "
        "(--no-reuse-scores: score all, keep none). Samples (unit prefix) are scored every time.",
    )
    device: Device = "auto"
    batch_size: BatchSize = 2048

    checkpoints: str | None = Field(
        default=None,
        min_length=1,
        description="Folder, shared by driver and executors, for a run's intermediate results (in a folder "
        "of its own, removed at its end), so that it "
        "survives the loss of an executor; none: they stay on the executors. Default: on a cluster, "
        "`checkpoints` in a workspace that is a folder; else none.",
    )

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Tables that clash, names that are none, times that are none."""
        return prune_rules(values, origin)

    @property
    def resolved_input(self) -> str:
        """The input: what was given, or the workspace's `sessions`."""
        return self.input or table_in_workspace(self.workspace, "sessions")

    @property
    def resolved_output(self) -> str:
        """The output: what was given, or the workspace's `pruned`."""
        return self.output or table_in_workspace(self.workspace, "pruned")

    @property
    def wanted_training(self) -> TrainSettings:
        """The training of the experts, with what the score needs of it."""
        needs = self.score in DYNAMICS
        return self.training.model_copy(update={"snapshots": True}) if needs else self.training

    @property
    def counted(self) -> Literal["interactions", "sessions", "samples"]:
        """What the ratio is a share of."""
        return "samples" if self.unit == "prefix" else self.budget

    def checkpoint_folder(self, cluster: bool) -> str | None:
        """Where intermediate results are written; None: nowhere.

        Args:
            cluster: whether executors can be lost.
        """
        if self.checkpoints is not None:
            return None if self.checkpoints == "none" else self.checkpoints
        if not cluster or not is_location(self.workspace):
            return None
        return table_in_workspace(self.workspace, "checkpoints")


def settings_hash(settings: PruneSettings) -> str:
    """SHA-256 of the canonical JSON of the settings that decide the result.

    Where things lie and how the job is run (output, workspace, config, device, checkpoints, reuse_scores,
    dry_run, verbose, quiet, json), and where experts are trained, is left out. 64 hexadecimal digits.
    """
    decide = settings.model_dump(mode="json", exclude=_NOT_HASHED)
    # Every engine gives the same scores, every number of processes the same experts. Their defaults stay, and
    # what was not there once is left out at its default, so that older runs are known again.
    decide["propagation"]["engine"] = "graphframes"
    decide["training"] |= _WHERE
    if decide["since"] is None:
        del decide["since"]
    if decide["sampling"]["min_support"] == 2:
        del decide["sampling"]["min_support"]
    if decide["sampling"]["demand"] == "recency":
        del decide["sampling"]["demand"], decide["sampling"]["forecast_exponent"]
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
    from prune_lib.settings.sources import load

    return load(PruneSettings, argv, environ)
