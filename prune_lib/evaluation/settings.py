"""What can be set about an evaluation: the model of its YAML file, its environment and its flags."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, model_validator

from prune_lib.evaluation.targets.settings import FitSettings
from prune_lib.locations import is_location, local_path, table_in_workspace, workspace_folder
from prune_lib.settings import PruneSettings
from prune_lib.settings.fields import (
    BatchSize,
    Device,
    Distinct,
    ItemColumn,
    Method,
    OrderColumn,
    SessionColumn,
    Share,
    TimeColumn,
)
from prune_lib.settings.job import JobText, PipelineSettings
from prune_lib.settings.rules import evaluate_rules, is_true

__all__ = ["EvaluateSettings", "FitSettings", "Regime", "Samples", "Target"]

Target = Literal["gru4rec", "sasrec", "srgnn", "narm", "stamp", "hstu", "item-knn", "session-knn", "markov"]
Regime = Literal["steps", "epochs", "tuned"]
Samples = Literal["positions", "prefixes", "last"]
_Name = Annotated[str, Field(min_length=1)]

# What `quick` stands for, where nothing else is given.
_QUICK: Mapping[str, Any] = {
    "ratios": (0.1, 1.0),
    "targets": ("gru4rec", "session-knn", "markov"),
    "seeds": 1,
    "regimes": ("steps",),
}
_QUICK_STEPS = 200
# A pruning run's seed is below this.
_SEEDS = 2**31

# Words of which a table's name says nothing about the data in it.
_GENERIC = {""} | set(
    "all clicks data dataset events files full input interactions parquet part raw sessions table tables "
    "test train training".split()
)
_ENDING = re.compile(r"\.(parquet|delta)$", re.IGNORECASE)


class EvaluateSettings(PipelineSettings):
    """Settings of an evaluation; frozen, unknown keys are refused."""

    job: ClassVar[JobText] = JobText(
        name="evaluate",
        usage="spark-submit jobs/evaluate.py [flags], or: evaluate-pruning [flags]",
        description="Train recommenders on pruned data and on all of it; compare their quality and cost.",
        script="jobs/evaluate.py",
        listing="conf/evaluate.yaml",
        example=("ratios", "0.1,0.3"),
        headings={
            "ratios": "what to compare",
            "input": "data and results",
            "session_column": "columns of the input",
            "device": "the machine",
            "watts": "energy and money",
            "config": "the run",
        },
        interrupted="What is trained is kept: the same command goes on where this one stopped.",
    )

    ratios: Distinct[Share] = Field(
        default=(0.05, 0.1, 0.2, 0.3, 0.5, 1.0),
        min_length=1,
        description="Shares of the interactions to keep, each in (0, 1]. 1, all the data, is the reference "
        "and always evaluated.",
    )
    methods: Distinct[Method] = Field(
        default=("graph", "random"),
        min_length=1,
        description="How sessions are chosen: graph is ours, the others (random, hardest, easiest, moderate, "
        "ccs, d2, dual, item-quota, recent) are baselines. random is always evaluated beside them.",
    )
    targets: Distinct[Target] = Field(
        default=("gru4rec", "sasrec", "srgnn", "narm", "stamp", "hstu", "item-knn", "session-knn", "markov"),
        min_length=1,
        description="Recommenders that are trained on what is kept.",
    )
    regimes: Distinct[Regime] = Field(
        default=("steps", "epochs"),
        min_length=1,
        description="How long a target is trained on a share of the data: steps, as many batches as on all "
        "the data; epochs, as many passes (what pruning does to the cost); tuned, as many batches as suit a "
        "random subset of that share, all the data included (what it does to quality). The same for all "
        "methods, whichever.",
    )
    samples: Distinct[Samples] = Field(
        default=("positions",),
        min_length=1,
        description="What of a session a neural target learns from: positions, all of them in one pass; "
        "prefixes, each as a sample of its own; last, the last position only.",
    )
    ablations: Distinct[_Name] = Field(
        default=(), description="Names of ablations to evaluate beside the methods."
    )
    seeds: int = Field(
        default=3, ge=1, description="How many seeds: each prunes and trains anew, beginning with `seed`."
    )
    seed: int = Field(default=0, ge=0, lt=_SEEDS, description="The first seed.")
    quick: bool = Field(
        default=False,
        description="A small evaluation, minutes: ratios 0.1 and 1, targets gru4rec, session-knn and markov, "
        "one seed, few steps; what is given explicitly wins.",
    )

    input: str | None = Field(
        default=None,
        min_length=1,
        description="Table to prune and to learn from, sessions or events: a name (schema.table) or a "
        "location, Delta or Parquet. Default: the workspace's `sessions`, made from demo data where there is "
        "none.",
    )
    test: str | None = Field(
        default=None,
        min_length=1,
        description="Table to test on: sessions, events, or rows of `prefix` and `target`. Default: the "
        "newest `validation_share` of the input is cut off as the test.",
    )
    split: Literal["test", "validation"] = Field(
        default="test",
        description="test: prune all training sessions and report on the test; validation: hold out the "
        "newest training sessions, prune and train on the others. Choose settings on validation only.",
    )
    validation_share: float = Field(
        default=0.1, gt=0, le=0.5, description="Share of the sessions, the newest, that is held out."
    )
    name: str | None = Field(
        default=None,
        min_length=1,
        pattern=r"^\w[\w .-]*$",
        examples=["diginetica: letters, digits, blanks, points and hyphens"],
        description="Name of the data set in tables; default: taken from the input's name, for "
        "/x/diginetica/sessions_train.parquet it is diginetica.",
    )
    output: str | None = Field(
        default=None,
        min_length=1,
        description="Delta table of results: a name or a location. Default: the workspace's `evaluation`.",
    )
    document: str | None = Field(
        default=None,
        min_length=1,
        description="Folder where results.md and its figures are written. Default: the workspace's "
        "`evaluation_report`; ./evaluation_report where the workspace is no folder of this machine.",
    )

    session_column: SessionColumn = None
    item_column: ItemColumn = None
    time_column: TimeColumn = None
    order_column: OrderColumn = None

    device: Device = "auto"
    batch_size: BatchSize = 2048
    processes: int = Field(
        default=0, ge=0, description="Targets trained side by side; 0: as many as there are cores."
    )

    watts: float | None = Field(
        default=None,
        gt=0,
        description="Power that the machine draws while it trains: turns seconds into energy.",
    )
    price_per_kwh: float | None = Field(
        default=None, ge=0, description="Price of a kilowatt-hour: turns the energy into money."
    )
    price_per_hour: float | None = Field(
        default=None, ge=0, description="Price of an hour of the machine: turns seconds into money."
    )

    fit: FitSettings = Field(default=FitSettings(), description="Training of the targets")

    @model_validator(mode="before")
    @classmethod
    def _fill_quick(cls, values: Any) -> Any:
        """A quick evaluation has smaller defaults; what is given stays."""
        if not isinstance(values, dict) or not is_true(values.get("quick", False)):
            return values
        fit = values.get("fit", {})
        given = fit.model_fields_set if isinstance(fit, BaseModel) else set(fit)
        if given.isdisjoint(("steps", "epochs_tried")):  # either of them says how long
            more = {"steps": _QUICK_STEPS}
            fit = fit.model_copy(update=more) if isinstance(fit, BaseModel) else {**fit, **more}
        return {**_QUICK, **values, "fit": fit}

    @classmethod
    def problems(cls, values: Mapping[str, Any], origin: Callable[[str], str]) -> list[str]:
        """Tables that clash, names that are none, a report among the tables, seeds that cannot be."""
        found = evaluate_rules(values, origin)
        # As it was written, by a flag or a file, or as a number.
        seed = str(values["training.seed"] if "training.seed" in values else values["training"]["seed"])
        if seed.strip("0 "):
            found.append(
                f"{origin('training.seed')} {seed}: every seed of an evaluation trains experts of its own. "
                "Say with which it begins by --seed, and leave this out."
            )
        first, count = (_whole(values[name]) for name in ("seed", "seeds"))
        if first < _SEEDS < first + count:
            found.append(
                f"{origin('seeds')} {count} from {origin('seed')} {first}: the last of them would be "
                f"{first + count - 1:,}, and the largest seed is {_SEEDS - 1:,}. Begin with a smaller one, "
                "or give fewer."
            )
        return found

    @property
    def shares(self) -> tuple[float, ...]:
        """The ratios below 1, from small to large; 1, the reference, is evaluated beside them."""
        return tuple(sorted(ratio for ratio in self.ratios if ratio < 1))

    @property
    def compared(self) -> tuple[Method, ...]:
        """The methods, and random beside them."""
        return self.methods if "random" in self.methods else (*self.methods, "random")

    @property
    def data_set(self) -> str:
        """Name of the data set: what was given, or what the input's name says."""
        return self.name or _data_set(self.resolved_input)

    @property
    def resolved_input(self) -> str:
        """The input: what was given, or the workspace's `sessions`."""
        return self.input or table_in_workspace(self.workspace, "sessions")

    @property
    def resolved_output(self) -> str:
        """The output: what was given, or the workspace's `evaluation`."""
        return self.output or table_in_workspace(self.workspace, "evaluation")

    @property
    def resolved_document(self) -> str:
        """The report's folder: what was given, or one in the workspace, else in the working folder."""
        folder = workspace_folder(self.workspace) or Path()
        if self.document:
            return str(local_path(self.document) or self.document)
        return str(folder / "evaluation_report")

    def prune_settings(
        self,
        method: Method,
        seed: int,
        ratio: float,
        input: str,
        output: str,
        workspace: str,
        *,
        has_order: bool = True,
        unit: Literal["session", "prefix"] = "session",
    ) -> PruneSettings:
        """Settings of the pruning run whose result is evaluated.

        Args:
            method: how sessions are chosen.
            seed: of the selection and of the experts' training.
            ratio: share of the interactions to keep.
            input: table to prune: session_id, items, place, as `data.make_split` writes it.
            output: table of what is kept.
            workspace: where the run's experts and tracking lie.
            has_order: whether `place` ranks sessions from old to new, or is any number.
            unit: what is chosen.
        """
        return PruneSettings(
            ratio=ratio,
            method=method,
            unit=unit,
            seed=seed,
            input=input,
            output=output,
            workspace=workspace,
            session_column="session_id",
            item_column="items",
            order_column="place" if has_order else None,
            device=self.device,
            batch_size=self.batch_size,
            sampling=self.sampling,
            suspects=self.suspects,
            propagation=self.propagation,
            training=self.training.model_copy(update={"seed": seed}),
        )


def _whole(value: object) -> int:
    """A number as it was written; 0 where it is none, which its field says in words of its own."""
    try:
        return int(str(value))
    except ValueError:
        return 0


def _data_set(table: str) -> str:
    """The last part of a location that says what is in it; the last part of a name.

    >>> [_data_set(t) for t in ("/x/diginetica/sessions_train.parquet", "s3://b/shop/train/", "a.b.c")]
    ['diginetica', 'shop', 'c']
    """
    if not is_location(table):
        return table.rpartition(".")[2].strip("`")
    parts = table.rpartition("://")[2].split("/")
    names = [_ENDING.sub("", part) for part in parts if part.strip(".")]
    telling = (n for n in reversed(names) if not _GENERIC.issuperset(re.split(r"[\W\d_]+", n.lower())))
    return next(telling, names[-1] if names else "data")
