"""Before any work: opening the input, and everything that can be refused while it costs nothing."""

from __future__ import annotations

import logging
from typing import Any, Protocol

import numpy as np
from pyspark.sql import DataFrame, SparkSession

from prune_lib.baselines import NEEDS_DIFFICULTY, NEEDS_ORDER
from prune_lib.errors import InputError, SettingsError
from prune_lib.forecast import forecast
from prune_lib.locations import is_location
from prune_lib.sessions.encoding import Encoded
from prune_lib.sessions.opening import has_commit, in_catalog
from prune_lib.sessions.reading import ColumnNames, InputTable, SessionStats, open_input
from prune_lib.sessions.recent import window_line
from prune_lib.settings import PruneSettings
from prune_lib.settings.train import ExpertsSettings
from prune_lib.stages import Stages
from prune_lib.summary import Summary, tables_of
from prune_lib.wording import allowed

__all__ = [
    "NamesColumns",
    "budget_of",
    "check_device",
    "check_floor",
    "check_order",
    "check_report",
    "columns_of",
    "make_demo",
    "open_input_of",
    "plan",
]

_LOG = logging.getLogger(__name__)


_ReadsInput = PruneSettings | ExpertsSettings


class NamesColumns(Protocol):
    """Settings by which the user can name the columns of the input."""

    @property
    def session_column(self) -> str | None: ...  # noqa: D102
    @property
    def item_column(self) -> str | None: ...  # noqa: D102
    @property
    def time_column(self) -> str | None: ...  # noqa: D102
    @property
    def order_column(self) -> str | None: ...  # noqa: D102


def columns_of(settings: NamesColumns) -> ColumnNames:
    """The columns that the user named."""
    return ColumnNames(
        session=settings.session_column,
        item=settings.item_column,
        time=settings.time_column,
        order=settings.order_column,
    )


def open_input_of(spark: SparkSession, settings: _ReadsInput) -> InputTable | None:
    """The input; None where the demo data set is to be made: no --input, and no table in the workspace.

    Raises:
        InputError: see `open_input`; or a version is asked for of a table that is not there.
    """
    if settings.input is None and not _exists(spark, settings.resolved_input):
        if settings.version is None and settings.timestamp is None:
            return None
        raise InputError(
            f"There is no table at {settings.resolved_input}, so there is no version of it to read. "
            "Give the table by --input, or leave --version and --timestamp out to generate the demo data."
        )
    return open_input(
        spark,
        settings.resolved_input,
        version=settings.version,
        timestamp=settings.timestamp,
        columns=columns_of(settings),
    )


def make_demo(spark: SparkSession, settings: _ReadsInput, stages: Stages, seed: int) -> InputTable:
    """Write the demo data set to the workspace's sessions, and open it."""
    from prune_lib.sessions.demo import write_demo

    place, sessions = settings.resolved_input, settings.demo.sessions
    with stages.stage("demo data") as stage:
        _LOG.info(
            "no --input and no table at %s: making the demo data set of %s there", place, _many(sessions)
        )
        write_demo(spark, place, sessions, seed=seed)
        stage.rows = sessions
    return open_input(spark, place, columns=columns_of(settings))


def _many(sessions: int) -> str:
    return f"{sessions:,} sessions"


def _exists(spark: SparkSession, name: str) -> bool:
    """Whether anything is at the place of the workspace's sessions, but for a demo that was interrupted."""
    if not is_location(name):
        return in_catalog(spark, name)
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(name)
    fs = path.getFileSystem(spark._jsc.hadoopConfiguration())
    log = jvm.org.apache.hadoop.fs.Path(path, "_delta_log")
    return bool(fs.exists(path)) and not (fs.exists(log) and not has_commit(fs, log))


def plan(spark: SparkSession, settings: PruneSettings, table: InputTable | None) -> Summary:
    """What a dry run prints: input and columns, output, method, experts."""
    lines = [
        "Dry run: nothing was computed and no table was touched.",
        table.describe()
        if table
        else f"input {settings.resolved_input}: not there yet; the demo data set of "
        f"{_many(settings.demo.sessions)} would be made there (--input names a table of your own)",
        *([window_line(settings.since)] if settings.since else []),
        f"output: {settings.resolved_output}, with _decisions, _items and _runs",
        f"method {settings.method}, {settings.ratio:g} of the {settings.counted}, seed {settings.seed}",
    ]
    bundle = None
    scores = settings.method == "graph" or settings.method in NEEDS_DIFFICULTY
    if scores:
        from prune_lib.model_store import find_bundle

        bundle = find_bundle(settings, table.location if table else settings.resolved_input)
        lines.append(
            f"experts: {bundle.path} (version {bundle.version})"
            if bundle
            else "experts: none for this input yet; they would be trained first"
        )
    ahead = forecast(spark, settings, table, bundle.version if bundle else None, scores)
    found = {
        "forecast": ahead,
        "input": table.location if table else settings.resolved_input,
        "input_version": table.version if table else None,
        "layout": table.layout if table else None,
        "columns": {
            role: getattr(table, f"{role}_column") if table else None
            for role in ("session", "item", "time", "order")
        },
        "tables": tables_of(settings.resolved_output),
        "settings": settings.model_dump(mode="json", by_alias=True),
        "experts": str(bundle.path) if bundle else None,
    }
    return Summary("\n".join([*lines, *ahead]), plan=found)


def check_device(spark: SparkSession, settings: PruneSettings) -> None:
    """Refuse `--device cuda` on a machine without a GPU; a cluster's executors speak for themselves.

    Raises:
        EnvironmentProblem: there is none.
    """
    if settings.device == "cuda" and str(spark.sparkContext.master).startswith("local"):
        from prune_lib.experts.devices import pick_device

        pick_device(settings.device)


def check_report(settings: PruneSettings) -> None:
    """Refuse `--report` where the page could not be made or written.

    Raises:
        OutputError: there is a folder in its place, or its own cannot be written to.
        ModuleNotFoundError: a package that draws it is not installed.
    """
    # The job itself, so that a missing package shows now and not after an hour.
    import prune_lib.report.job  # noqa: F401
    from prune_lib.report.place import check_place
    from prune_lib.settings.report import report_place

    check_place(report_place(settings.resolved_output, settings.workspace))


def check_order(settings: PruneSettings, raw: DataFrame) -> None:
    """Refuse a method that asks which sessions are new where the input does not tell."""
    if settings.method in NEEDS_ORDER and "ordering" not in raw.columns:
        raise InputError(
            f"--method {settings.method} needs to know which sessions are new, and the input has neither "
            "times nor an order. Name a column by --time-column or --order-column."
        )


def budget_of(settings: PruneSettings, stats: SessionStats) -> int:
    """What may be kept, in interactions, sessions or samples: the ratio's share, rounded down.

    Raises:
        SettingsError: less than one.
    """
    clicks, sessions = stats.n_interactions, stats.n_sessions
    # All clicks but a session's first are the target of a sample.
    total = {"interactions": clicks, "sessions": sessions, "samples": clicks - sessions}[settings.counted]
    budget = allowed(settings.ratio, total)
    if budget < 1:
        raise SettingsError(
            f"--ratio {settings.ratio:g} of {total:,} {settings.counted} is less than one: nothing would be "
            "kept. Raise --ratio."
        )
    return budget


def check_floor(settings: PruneSettings, encoded: Encoded, budget: int) -> None:
    """A floor that cannot fit is refused before anything runs: a click serves one item."""
    if settings.budget != "interactions":
        return
    wanted = int((encoded.item_sessions >= settings.floor).sum()) * settings.floor
    if wanted > budget:
        raise SettingsError(
            f"--floor {settings.floor} does not fit --ratio {settings.ratio:g}: it needs at least {wanted:,} "
            f"{settings.counted}, and the budget is {budget:,}. Raise --ratio to "
            f"{np.ceil(1000 * wanted / encoded.n_interactions) / 1000:g} or more, or lower --floor."
        )
