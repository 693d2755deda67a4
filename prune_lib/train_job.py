"""`train`: from a table of sessions to a bundle of experts, and into MLflow's registry where it is asked for.

read -> encode -> train -> keep -> (register)
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_lib.errors import InputError, OutputError, SettingsError
from prune_lib.experts.bundle import strangers
from prune_lib.experts.card import overall
from prune_lib.experts.settings import EXPERTS
from prune_lib.launcher import job_script, launcher
from prune_lib.locations import is_location
from prune_lib.model_store import local_folder, new_folder, track_training
from prune_lib.preflight import make_demo, open_input_of, warn_of_input
from prune_lib.session import check_runtime, get_spark, measured_joins, ship_package
from prune_lib.sessions.columns import EXAMPLES
from prune_lib.sessions.encoding import encode
from prune_lib.sessions.opening import source_of
from prune_lib.sessions.reading import check_sessions, settled_sessions
from prune_lib.sessions.recent import check_since, since, window_line
from prune_lib.settings.train import ExpertsSettings
from prune_lib.stages import Stages, described
from prune_lib.tables import check_writable

if TYPE_CHECKING:
    from datetime import datetime

    from pyspark.sql import SparkSession

    from prune_lib.experts.bundle import Bundle

__all__ = ["Trained", "train"]


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        text: what is printed.
        bundle: the experts; None after a dry run.
        registered: URI in MLflow's registry; None where it was not asked for.
        since: where the window of `--since` begins; None without one.
        warnings: of the run.
    """

    text: str
    bundle: Bundle | None = None
    registered: str | None = None
    since: datetime | None = None
    warnings: Sequence[str] = ()

    def __str__(self) -> str:
        """The text for people."""
        return self.text

    def record(self) -> dict[str, Any]:
        """What --json says: where the bundle is, what it learnt from, how good and how fair it is."""
        if self.bundle is None:
            return {"dry_run": True, "plan": self.text.splitlines()}
        return {
            "dry_run": False,
            "experts": str(self.bundle.path),
            "version": self.bundle.version,
            "registered": self.registered,
            "input": self.bundle.config["input"],
            "since": None if self.since is None else self.since.isoformat(),
            "metrics": self.bundle.metrics,
            "warnings": list(self.warnings),
        }


def train(settings: ExpertsSettings, spark: SparkSession | None = None) -> Trained:
    """Train experts on a table of sessions.

    Args:
        settings: what to learn from, how, and where to keep it.
        spark: the session to use; None takes the running one or builds one.

    Returns:
        The bundle, and a page about it; with `--dry-run` the plan.

    Raises:
        BundleError: the bundle was written, and MLflow's registry did not take it.
        UserError: the settings, the input or the output cannot be used as they are; nothing was written.
    """
    spark = spark or get_spark("train")
    check_runtime(spark)
    ship_package(spark)
    with measured_joins(spark), described("train"):
        return _train(settings, spark)


def _train(settings: ExpertsSettings, spark: SparkSession) -> Trained:
    from prune_lib.experts.training import train_experts

    found = open_input_of(spark, settings)
    folder = _folder(settings)
    check_writable(spark, str(folder.parent), "The folder", "--output" if settings.output else "--workspace")
    _check_device(spark, settings)
    if found and settings.since:
        check_since(found)
    if settings.dry_run:
        lines = [
            "Dry run: nothing was computed and nothing was written.",
            found.describe() if found else f"input {settings.resolved_input}: demo data would be made there",
            *([window_line(settings.since)] if settings.since else []),
            f"experts: a bundle in {folder}",
        ]
        if settings.register_as:
            lines.append(f"registry: a new version of {_uri(settings)}")
        return Trained("\n".join(lines))
    stages = Stages()
    table = found or make_demo(spark, settings, stages, seed=0)
    begins: datetime | None = None
    warn_of_input(table, stages)
    with stages.stage("read") as stage:
        if settings.since:
            table, begins = since(table, settings.since)
        raw = settled_sessions(table)
        stage.rows = check_sessions(table, raw, stages.warn).n_sessions
    with stages.stage("encode") as stage:
        encoded = encode(raw, seed=0)
        stage.rows = encoded.n_interactions
    with stages.stage("training") as stage:
        bundle = train_experts(encoded, settings.training, folder, source=source_of(table))
        stage.rows = encoded.n_interactions
    registered = track_training(settings, table, bundle, stages, settings.register_as, settings.alias)
    text = "\n".join(_lines(settings, bundle, registered, stages, begins))
    return Trained(text, bundle, registered, begins, stages.warnings)


def _check_device(spark: SparkSession, settings: ExpertsSettings) -> None:
    """Refuse a GPU that this machine lacks, where it is to train; a cluster's executors speak for themselves.

    Raises:
        EnvironmentProblem: there is none.
    """
    from prune_lib.experts.devices import pick_device

    here = settings.training.distributor == "driver"
    if here or str(spark.sparkContext.master).startswith("local"):
        pick_device(settings.training.device)


def _folder(settings: ExpertsSettings) -> Path:
    if settings.output is not None:
        folder = local_folder(settings.output, "--output")
        if Path.cwd().is_relative_to(folder.resolve()):
            raise InputError(
                f"A bundle of experts takes the place of its folder, and --output {settings.output} is the "
                "one where this job was started, or lies around it. Name one inside, such as ./experts."
            )
        try:
            if folder.is_file():
                raise InputError(
                    f"--output {settings.output} is a file, and a bundle of experts is a folder."
                )
            others = strangers(folder)
        except OSError as refusal:
            raise OutputError(
                f"--output {settings.output} cannot be looked into: {refusal.strerror}. Give another folder, "
                "or change its permissions."
            ) from refusal
        if others:
            # The whole folder is replaced.
            raise InputError(
                f"The folder {folder} is not empty and holds no bundle of experts alone, but "
                f"{', '.join(others[:EXAMPLES])}. Give another --output, or empty the folder."
            )
        return folder
    if not is_location(settings.workspace):
        raise SettingsError(
            f"the workspace {settings.workspace} is a schema of the catalog, and trained experts need a "
            "folder. Give one by --output, or a folder (such as a volume's path) by --workspace."
        )
    return new_folder(settings.workspace)


def _uri(settings: ExpertsSettings) -> str:
    return f"models:/{settings.register_as}" + (f"@{settings.alias}" if settings.alias else "")


def _lines(
    settings: ExpertsSettings,
    bundle: Bundle,
    registered: str | None,
    stages: Stages,
    begins: datetime | None,
) -> Iterator[str]:
    """The summary: likelihoods, fairness, where the bundle is and how it is used."""
    about: dict[str, Any] = bundle.config["input"]
    yield f"Trained experts {bundle.version} on {about['source']}, into {bundle.path}"
    yield (
        f"  {about['sessions']:,} sessions, {about['interactions']:,} interactions, {about['items']:,} items"
        + (f", since {begins:%Y-%m-%d %H:%M:%S} UTC" if begins else "")
    )
    found = overall(bundle.metrics)
    yield "  held-out log-likelihood of a next item, nats; higher is better"
    yield "    " + ", ".join(
        f"{name} {found[f'log_likelihood_{name}']:.3f}"
        for name in (*EXPERTS, "uniform", "gate")
        if f"log_likelihood_{name}" in found
    )
    yield "  does difficulty go with popularity? Spearman with the target's, 0 is fair"
    yield "    " + ", ".join(f"{name} {value:+.2f}" for name, value in found.get("spearman", {}).items())
    yield "  seconds      " + ", ".join(f"{s.name} {s.seconds:.1f}" for s in stages.done)
    yield from (f"  warning      {w}" for w in stages.warnings)
    yield ""
    yield "Use it:"
    yield ""
    source, experts = shlex.quote(about["source"]), shlex.quote(registered or str(bundle.path))
    yield f"  {launcher()} {job_script('prune')} --ratio 0.1 --input {source} --experts {experts}"
