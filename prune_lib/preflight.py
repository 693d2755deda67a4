"""Before any work: opening the input, and everything that can be refused while it costs nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol

import numpy as np
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from prune_lib.baselines import NEEDS_DIFFICULTY, NEEDS_ORDER
from prune_lib.checkpoints import loses_executors
from prune_lib.commits import Seen
from prune_lib.delta import child
from prune_lib.errors import InputError, SettingsError
from prune_lib.floor_by import check_columns as check_floor_columns
from prune_lib.floor_by import parsed
from prune_lib.forecast import forecast
from prune_lib.locations import is_location
from prune_lib.sessions.encoding import Encoded
from prune_lib.sessions.opening import has_commit, in_catalog, reached, source_of
from prune_lib.sessions.reading import ColumnNames, InputTable, SessionStats, open_input
from prune_lib.sessions.recent import check_since, window_line
from prune_lib.settings import PruneSettings
from prune_lib.settings.train import ExpertsSettings
from prune_lib.stages import Stages
from prune_lib.summary import Summary, tables_of
from prune_lib.tables import check_columns, check_output, check_writable
from prune_lib.wording import allowed

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle

__all__ = [
    "NamesColumns",
    "budget_of",
    "check_device",
    "check_experts",
    "check_floor",
    "check_order",
    "check_report",
    "check_run",
    "columns_of",
    "make_demo",
    "open_input_of",
    "plan",
    "warn_of_input",
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
    fs, path, there = reached(spark, name)
    log = child(spark, path, "_delta_log")
    return there and not (fs.exists(log) and not has_commit(fs, log))


def check_run(spark: SparkSession, settings: PruneSettings, table: InputTable | None) -> Seen:
    """Everything that can be refused of a run while it costs nothing, but for its experts (`check_experts`).

    Args:
        spark: the session.
        settings: of the run.
        table: the input; None where it is still to be made.

    Returns:
        The versions of the output's tables, see `write_tables`.

    Raises:
        UserError: the run cannot be made.
    """
    seen = check_output(spark, settings.resolved_output)
    if table:
        check_columns(table.df)
    check_device(spark, settings)
    if settings.report:
        check_report(settings)
    if table and settings.since:
        check_since(table)
    if table:
        known = table.time_column is not None or table.order_column is not None
        check_order(settings, has_order=known)
        check_floor_columns(table, [parsed(text) for text in settings.floor_by])
    return seen


_CHANGES = (
    "the input is a view, which has no versions: where what it reads changes during the run, the decisions "
    "are of the rows as they were at first, and the kept rows are those at the end. Give a table instead, "
    "such as one that the view was written to"
)


def warn_of_input(table: InputTable, stages: Stages) -> None:
    """Say of an input what the run cannot see to."""
    if table.format == "view":
        stages.warn(_CHANGES)


def check_experts(spark: SparkSession, settings: PruneSettings, table: InputTable | None) -> Bundle | None:
    """The experts that a run would use; that new ones can be kept where there are none.

    Args:
        spark: the session.
        settings: of the run.
        table: the input; None where it is still to be made, or written down.

    Returns:
        None where they would be trained first, or the method asks none.

    Raises:
        UserError: the experts asked for are missing or damaged, or new ones would have no place.
    """
    if not _asks_experts(settings):
        return None
    from prune_lib.model_store import find_bundle, new_folder

    bundle = find_bundle(settings, source_of(table) if table else settings.resolved_input)
    if bundle is None:
        place = str(new_folder(settings.workspace).parent)
        check_writable(spark, place, "The folder of experts", "--workspace")
    return bundle


def _asks_experts(settings: PruneSettings) -> bool:
    return settings.method == "graph" or settings.method in NEEDS_DIFFICULTY


def plan(spark: SparkSession, settings: PruneSettings, table: InputTable | None) -> Summary:
    """What a dry run prints: input and columns, output, method, experts."""
    lines = [
        "Dry run: nothing was computed and no table was touched.",
        table.describe()
        if table
        else f"input {settings.resolved_input}: not there yet; the demo data set of "
        f"{_many(settings.demo.sessions)} would be made there (--input names a table of your own)",
        *([f"warning: {_CHANGES}"] if table and table.format == "view" else []),
        *([window_line(settings.since)] if settings.since else []),
        f"output: {settings.resolved_output}, with _decisions, _items and _runs",
        f"method {settings.method}, {settings.ratio:g} of the {settings.counted}, seed {settings.seed}",
    ]
    bundle, scores = check_experts(spark, settings, table), _asks_experts(settings)
    if scores:
        lines.append(
            f"experts: {bundle.place} (version {bundle.version})"
            if bundle
            else "experts: none for this input yet; they would be trained first"
        )
    folder = settings.checkpoint_folder(loses_executors(str(spark.sparkContext.master)))
    # The session's own comes before ours.
    if folder is not None and not spark.sparkContext.getCheckpointDir():
        check_writable(spark, folder, "The folder of checkpoints", "--checkpoints")
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
        "experts": bundle.place if bundle else None,
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


def check_order(settings: PruneSettings, *, has_order: bool) -> None:
    """Refuse a method that asks which sessions are new where the input does not tell."""
    if settings.method in NEEDS_ORDER and not has_order:
        raise InputError(
            f"--method {settings.method} needs to know which sessions are new, and the input has neither "
            "times nor an order, or the same for all. Name a column by --time-column or --order-column."
        )


def budget_of(settings: PruneSettings, stats: SessionStats) -> int:
    """What may be kept, in interactions, sessions or samples: the ratio's share, rounded down.

    Raises:
        SettingsError: less than one, or than any session costs.
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
    if settings.counted == "interactions" and budget < stats.shortest:
        raise SettingsError(
            f"--ratio {settings.ratio:g} keeps nothing: the budget is {budget:,} interactions, and the "
            f"shortest session has {stats.shortest:,}. Raise --ratio, or count sessions with "
            "--budget sessions."
        )
    return budget


def check_floor(settings: PruneSettings, encoded: Encoded, budget: int) -> None:
    """A floor that cannot fit is refused before anything is scored.

    A click serves one item, a session those that it holds: what the items want, by the most that one can
    serve, is the least that any selection costs.

    Cost: a pass over the sessions where they are what the budget counts, and it may be too small.
    """
    items = int((encoded.item_sessions >= settings.floor).sum())
    least, total = items * settings.floor, encoded.n_interactions
    if least > budget and settings.counted == "sessions":
        held = encoded.sessions.agg(F.max(F.size(F.array_distinct("items")))).first()
        least, total = -(-least // int((held or [1])[0] or 1)), encoded.n_sessions
    if least > budget:
        raise SettingsError(
            f"--floor {settings.floor} does not fit --ratio {settings.ratio:g}: it needs at least {least:,} "
            f"{settings.counted}, and the budget is {budget:,}. Raise --ratio to "
            f"{np.ceil(1000 * least / total) / 1000:g} or more, or lower --floor."
        )
