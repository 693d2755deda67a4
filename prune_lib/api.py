"""`prune`, `evaluate`, `ingest_log` for programs and notebooks: a frame or a table in, what was found out."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, overload

import pandas as pd
from pyspark.sql import DataFrame, SparkSession

from prune_lib.checkpoints import checkpoints, loses_executors
from prune_lib.errors import InputError, SettingsError
from prune_lib.locations import is_location, table_in_workspace
from prune_lib.pipeline import run_prune
from prune_lib.preflight import NamesColumns, check_experts, check_run, columns_of, plan
from prune_lib.pruned import Pruned
from prune_lib.session import check_runtime, get_spark, measured_joins
from prune_lib.sessions.columns import InputTable, with_columns
from prune_lib.settings import PruneSettings
from prune_lib.settings.job import JobSettings
from prune_lib.settings.keywords import as_arguments
from prune_lib.settings.sources import of_call
from prune_lib.stages import Stages
from prune_lib.tables import check_columns
from prune_lib.terminal.cell import line_in_notebook
from prune_lib.written import check_name, spark_frame, write_down

if TYPE_CHECKING:
    from prune_lib.evaluation.output import Findings
    from prune_lib.evaluation.settings import EvaluateSettings
    from prune_lib.ingest.job import Ingested
    from prune_lib.settings.ingest import IngestSettings

__all__ = ["evaluate", "ingest_log", "prune"]

# Stands for the frame in messages about a table, and is then replaced.
_FRAME = "\0frame"

_Frame = DataFrame | pd.DataFrame


@overload
def prune(sessions: PruneSettings, *, spark: SparkSession | None = None) -> Pruned: ...


@overload
def prune(
    sessions: _Frame | str | os.PathLike[str] | None = None,
    ratio: float | None = None,
    *,
    name: str | None = None,
    spark: SparkSession | None = None,
    **settings: Any,
) -> Pruned: ...


def prune(
    sessions: _Frame | str | os.PathLike[str] | PruneSettings | None = None,
    ratio: float | None = None,
    *,
    name: str | None = None,
    spark: SparkSession | None = None,
    **settings: Any,
) -> Pruned:
    """Keep the share of a data set of sessions from which a recommender learns most.

    A DataFrame is written down first, as a Delta table of the workspace (`inputs/...`): it is computed once,
    hashed, and written unless the same rows are there already. So the run can pin its input, explanations can
    look at it later, and the experts trained for it are found the next time. That costs a pass to hash, one
    to write, and the space of a copy; a pandas DataFrame goes through the driver. A table that exists already
    is best given by its name.

    A notebook's cell shows the stage under way; elsewhere the logger `prune_lib` gets a line a stage
    (`logging.basicConfig(level="INFO")` shows them).

    Args:
        sessions: a Spark or pandas DataFrame (a row a click, or a row a session with an array of items), the
            name or location of a table, or all settings as `PruneSettings`. None: the workspace's `sessions`,
            made from demo data where there is none.
        ratio: share of the data to keep, in (0, 1].
        name: of the table that a DataFrame is written to; by default it hangs on the content, so that other
            rows are another table, with experts of its own. Under a name, other rows are a new version of the
            same table, whose experts serve again as long as they know its items.
        spark: the session to use; None takes the DataFrame's, the running one, or builds one.
        **settings: any key of conf/default.yaml: `output`, `workspace`, `method`, `session_column`, `floor`,
            `sampling={"kappa": 1}` and so on.

    Returns:
        What was kept: `.sessions`, `.decisions`, `.items`, `.summary()`, `.explain(id)`, `.at(0.05)`.

    Raises:
        UserError: the settings, the frame, the output or the experts cannot be used as they are; no table has
            been touched, but for the copy of a DataFrame.

    Examples:
        >>> pruned = prune(sessions, ratio=0.2)
        >>> pruned
        Pruned ...: ... of 250 sessions, ... of the budget of ... interactions
          in ...workspace/pruned (run ..., method graph)
        >>> kept = pruned.sessions                                     # the rows, in your own columns
        >>> "prune_rank" in kept.columns
        True
        >>> smaller = pruned.at(0.1)                                   # a tenth of the clicks, without a run
        >>> smaller.count() < kept.count()
        True
        >>> prune(sessions, ratio=20)
        Traceback (most recent call last):
            ...
        prune_lib.errors.SettingsError: `ratio` must be in (0, 1]; got 20. For 20% of the data write 0.2.
    """
    with as_arguments(PruneSettings), line_in_notebook():
        if isinstance(sessions, PruneSettings):
            if ratio is not None or name is not None or settings:
                raise SettingsError("give PruneSettings, or a table and arguments, not both.")
            return _run(sessions, spark or get_spark("prune"))
        values = {**settings, "ratio": ratio}
        if isinstance(sessions, str | os.PathLike):
            _refuse_input(settings)
            values["input"] = os.fspath(sessions)
        if isinstance(sessions, DataFrame | pd.DataFrame):
            return _of_frame(sessions, values, name, spark)
        if sessions is not None and not isinstance(sessions, str | os.PathLike):
            raise _no_table("sessions", sessions, PruneSettings)
        if name is not None:
            raise SettingsError("`name` is that of a DataFrame's table; leave it out for a table.")
        return _run(of_call(PruneSettings, values), spark or get_spark("prune"))


def evaluate(
    sessions: _Frame | str | os.PathLike[str] | EvaluateSettings | None = None,
    *,
    test: _Frame | str | os.PathLike[str] | None = None,
    spark: SparkSession | None = None,
    **settings: Any,
) -> Findings:
    """Measure what pruning costs: recommenders trained on what is kept, on as much at random, and on all.

    A DataFrame is written down first, as `prune` does it. What was trained before is not trained again, so
    that an evaluation goes on where it was stopped, and more ratios or targets cost themselves only.

    Args:
        sessions: a Spark or pandas DataFrame, the name or location of a table, or all settings as
            `EvaluateSettings`. None: the workspace's `sessions`, made from demo data where there is none.
        test: sessions to test on, later than the others; None cuts off the newest tenth.
        spark: the session to use; None takes the DataFrame's, the running one, or builds one.
        **settings: any key of conf/evaluate.yaml: `ratios`, `targets`, `methods`, `seeds`, `quick` and so on.

    Returns:
        What was found, printable; `.summary` is a row for each method, ratio, target and metric, `.document`
        the report. Cost: minutes with `quick=True`, hours with all targets, ratios and seeds.

    Raises:
        UserError: the settings or the data cannot be used as they are; no table of results was touched.

    Examples:
        >>> found = evaluate(sessions, ratios=[0.2], targets=["markov"], seeds=1)
        >>> here = found.summary.query("metric == 'recall@20' and band == 'all'")
        >>> sorted(set(here["method"]))
        ['all', 'graph', 'random']
        >>> found.document.name
        'results.md'
    """
    from prune_lib.evaluation.job import run_evaluation, working_folder
    from prune_lib.evaluation.settings import EvaluateSettings

    with as_arguments(EvaluateSettings), line_in_notebook():
        if isinstance(sessions, EvaluateSettings):
            if test is not None or settings:
                raise SettingsError("give EvaluateSettings, or a table and arguments, not both.")
            return run_evaluation(sessions, spark)
        _refuse_input(settings)
        values, frames = dict(settings), {}
        for key, given in (("input", sessions), ("test", test)):
            if isinstance(given, DataFrame | pd.DataFrame):
                frames[key] = given
            elif isinstance(given, str | os.PathLike):
                values[key] = os.fspath(given)
            elif given is not None:
                raise _no_table("test" if key == "test" else "sessions", given, EvaluateSettings)
        asked = of_call(EvaluateSettings, values)
        if frames and asked.dry_run:
            raise SettingsError(
                "a DataFrame is written down first, which `dry_run` must not do: give a table."
            )
        working_folder(asked)
        for key, frame in frames.items():
            spark, rows = _in_spark(frame, spark)
            check_runtime(spark)
            if key == "input":
                _opened(rows, asked)
            with measured_joins(spark, utc=False), Stages().stage(key):
                values[key] = write_down(spark, rows, asked.workspace, None)
        return run_evaluation(of_call(EvaluateSettings, values), spark)


def ingest_log(
    log: str | os.PathLike[str] | IngestSettings, *, spark: SparkSession | None = None, **settings: Any
) -> Ingested:
    """Bring a click log into a clean table of sessions; bad rows go to quarantine as they came.

    Args:
        log: a file, a folder, a pattern of files, or a table's name or location; or all settings as
            `IngestSettings`.
        spark: the session to use; None takes the running one, or builds one.
        **settings: any key of conf/ingest.yaml: `output`, `form`, `append`, `protocol`, `keep` and so on.

    Returns:
        What was read and what became of it, printable; `.sessions` and `.quarantine` are frames, `.run` the
        row of the table of runs.

    Raises:
        UserError: the settings or the log cannot be used as they are, or too many rows are bad; no table was
            touched.
    """
    from prune_lib.ingest.job import run_ingest
    from prune_lib.settings.ingest import IngestSettings

    with as_arguments(IngestSettings), line_in_notebook():
        if isinstance(log, IngestSettings):
            if settings:
                raise SettingsError("give IngestSettings, or a log and arguments, not both.")
            return run_ingest(log, spark)
        _refuse_input(settings)
        if not isinstance(log, str | os.PathLike):
            raise InputError(
                f"a log is a path or the name of a table, not a {type(log).__name__}. Write a frame down as "
                "Parquet or Delta first."
            )
        return run_ingest(of_call(IngestSettings, {**settings, "input": os.fspath(log)}), spark)


def _run(settings: PruneSettings, spark: SparkSession) -> Pruned:
    return Pruned.of(spark, run_prune(settings, spark))


def _of_frame(
    frame: _Frame, values: Mapping[str, Any], name: str | None, spark: SparkSession | None
) -> Pruned:
    """Write a frame down, and prune that."""
    _refuse_input(values)
    settings = of_call(PruneSettings, values)
    check_name(name)
    if settings.version is not None or settings.timestamp is not None:
        raise SettingsError("a DataFrame has no versions: leave out `version` and `timestamp`.")
    spark, rows = _in_spark(frame, spark)
    check_runtime(spark)
    table = _opened(rows, settings)
    # Before the frame is computed, and written down.
    with measured_joins(spark):
        table = replace(table, location=_place(settings.workspace, name))
        check_run(spark, settings, table)
        if settings.dry_run:
            return Pruned.of(spark, plan(spark, settings, table))
        check_experts(spark, settings, table)
    folder = settings.checkpoint_folder(loses_executors(str(spark.sparkContext.master)))
    with measured_joins(spark, utc=False), checkpoints(spark, folder), Stages().stage("input"):
        place = write_down(spark, rows, settings.workspace, name)
    return _run(of_call(PruneSettings, {**values, "input": place}), spark)


def _place(workspace: str, name: str | None) -> str:
    """Where `write_down` puts a frame under a name; in words without one, which is that of the content."""
    if name is None:
        return "the DataFrame"
    return table_in_workspace(workspace, f"inputs/{name}" if is_location(workspace) else f"input_{name}")


def _in_spark(frame: _Frame, spark: SparkSession | None) -> tuple[SparkSession, DataFrame]:
    """A frame as one of Spark's, and the session that it is in."""
    if isinstance(frame, DataFrame):
        return spark or frame.sparkSession, frame
    spark = spark or get_spark("prune")
    return spark, spark_frame(spark, frame)


def _no_table(name: str, given: object, model: type[JobSettings]) -> SettingsError:
    kind = f"{type(given).__module__}.{type(given).__qualname__}".removeprefix("builtins.")
    return SettingsError(
        f"`{name}` must be a DataFrame of Spark (classic, not Connect) or pandas, the name or location of a "
        f"table, or {model.__name__}; got {kind}."
    )


def _opened(rows: DataFrame, settings: NamesColumns) -> InputTable:
    """The frame as a table that was opened: what is wrong with its columns is said before it is computed."""
    try:
        table = with_columns(rows, columns_of(settings), _FRAME, None, "a DataFrame")
    except InputError as error:
        raise InputError(str(error).replace(f"table {_FRAME}", "DataFrame")) from error
    check_columns(rows)
    return table


def _refuse_input(settings: Mapping[str, Any]) -> None:
    if settings.get("input") is not None:
        raise SettingsError("`sessions` and `input` both name what is pruned. Leave one of them out.")
