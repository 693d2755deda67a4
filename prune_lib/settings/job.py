"""What every job's settings have in common: the job's texts, the keys of any run, the groups."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from prune_lib.experts.settings import TrainSettings
from prune_lib.settings.groups import (
    STRICT,
    DemoSettings,
    PropagationSettings,
    SamplingSettings,
    SuspectsSettings,
)
from prune_lib.settings.rules import loudness_rules, secret_rules, stray_rules

__all__ = ["SAYING", "JobSettings", "JobText", "PipelineSettings"]

#: Settings of what a job says and where it says it: no result hangs on them.
SAYING = ("verbose", "quiet", "as_json", "log_json")


@dataclass(frozen=True)
class JobText:
    """What the help, the messages and the file of all settings say of a job.

    Attributes:
        name: starts messages and, in capitals, the environment variables.
        usage: how it is called.
        description: what it does, in a sentence.
        script: what spark-submit runs.
        listing: the YAML file that lists all settings with their defaults.
        example: a setting and a value for it, where a message shows how one is written.
        headings: headings of the help, each by its first setting.
        interrupted: what of a run that was interrupted there is, in a sentence.
    """

    name: str
    usage: str
    description: str
    script: str
    listing: str
    example: tuple[str, str]
    headings: Mapping[str, str]
    interrupted: str = ""

    @property
    def env_prefix(self) -> str:
        """What the job's environment variables begin with."""
        return f"{self.name.upper()}_"


class JobSettings(BaseModel):
    """Settings of a job; frozen, unknown keys are refused.

    A field's description is the help of its flag. Groups are nested keys in the YAML file, `--group-key`
    on the command line, `JOB_GROUP__KEY` in the environment. In all three a job's own settings come before
    these here, and groups last.
    """

    job: ClassVar[JobText]
    #: Settings that name what the job writes.
    written: ClassVar[tuple[str, ...]] = ("workspace", "output", "checkpoints", "document", "path")
    # The setting `json` has another name in Python, where every model has a method `json`.
    # A value can be a secret that ours refuse: pydantic's own message would repeat it.
    model_config = ConfigDict(**STRICT, populate_by_name=True, hide_input_in_errors=True)

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
    quiet: bool = Field(
        default=False,
        description="Warnings and errors only, on stderr; nothing on stdout but what --json asks for.",
    )
    as_json: bool = Field(
        default=False,
        alias="json",
        description="The result as one JSON object on stdout, in the place of the summary for people; of a "
        "failure its kind, its message and the exit code.",
    )
    log_json: bool = Field(
        default=False,
        description="Log lines on stderr as JSON objects, one a line: time, level, job, run, stage, message; "
        "at a stage's end its seconds and rows.",
    )

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """What is wrong between settings, that no field can say alone; a job has its own.

        Args:
            values: by field, defaults filled in.
            origin: how a message names a field: where its value came from.
        """
        return []

    @classmethod
    def writes(cls, values: Mapping[str, Any]) -> Sequence[str]:
        """Those of `written` that name what the job writes with these values."""
        return cls.written

    @classmethod
    def mistakes(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """What is wrong between settings: those of every job, then the job's own.

        Args:
            values: by field, defaults filled in.
            origin: how a message names a field: where its value came from.
        """
        secrets = secret_rules(values, origin)
        # Other messages would repeat the value.
        if secrets:
            return secrets
        return (
            loudness_rules(values, origin)
            + stray_rules(values, origin, cls.writes(values))
            + cls.problems(values, origin)
        )

    @model_validator(mode="after")
    def _agree(self) -> JobSettings:
        problems = self.mistakes(self.model_dump(by_alias=True), lambda key: f"`{key}`")
        if problems:
            raise ValueError(" ".join(problems))
        return self

    def settings_json(self) -> str:
        """All settings as JSON, keys sorted."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)


class PipelineSettings(JobSettings):
    """Settings of a job that prunes: the groups `sampling`, `suspects` and so on."""

    sampling: SamplingSettings = Field(default=SamplingSettings(), description="Sampling")
    suspects: SuspectsSettings = Field(
        default=SuspectsSettings(), description="Sessions that look like bots or noise"
    )
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
