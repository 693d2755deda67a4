"""`run_prune`: the whole way of the data, from a table of sessions to the pruned table and its companions.

read -> encode -> (train) -> difficulty -> graph -> propagation -> sampling -> explanation -> write
"""

from __future__ import annotations

import logging
import uuid
from dataclasses import astuple, dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.baselines import NEEDS_DIFFICULTY, rank_baseline, take_budget
from prune_lib.checkpoints import checkpoints, loses_executors
from prune_lib.churn import churn_of
from prune_lib.decisions import Decided, decide, decision_rows, item_rows
from prune_lib.errors import SettingsError
from prune_lib.floor_by import check_columns as check_floor_columns
from prune_lib.floor_by import check_fits, floors_by, parsed
from prune_lib.graph import SessionGraph, build_graph
from prune_lib.popularity import Bands, popularity_bands
from prune_lib.preflight import (
    budget_of,
    check_experts,
    check_floor,
    check_order,
    check_run,
    make_demo,
    open_input_of,
    plan,
    warn_of_input,
)
from prune_lib.propagation import propagate
from prune_lib.run_record import IN_COMMITS, counts_of, run_of, run_row, track
from prune_lib.samples import last_clicks, sample_frame, sample_id, samples_of, windows
from prune_lib.sampling.floors import Floors, item_floors, joined_floors
from prune_lib.sampling.gains import Objective
from prune_lib.sampling.keys import received_by_pattern
from prune_lib.sampling.select import COVERAGE, Selection, first_twin, select_sessions
from prune_lib.schemas import conform
from prune_lib.session import check_runtime, get_spark, measured_joins, ship_package
from prune_lib.sessions.encoding import Encoded, encode
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.reading import (
    InputTable,
    check_sessions,
    settled_sessions,
)
from prune_lib.sessions.recent import since
from prune_lib.settings import PruneSettings
from prune_lib.settle import settle
from prune_lib.stages import Stages, described
from prune_lib.summary import Summary
from prune_lib.suspects import Suspects, find_suspects, session_shapes
from prune_lib.tables import pruned_frame, unusual_names, write_tables
from prune_lib.views import view_trouble

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle

__all__ = ["run_prune"]

_LOG = logging.getLogger(__name__)

# A run that uses less of its budget says so: one long session in line can end it.
WELL_USED = 0.95

_NO_SCORES = (
    "sid bigint, difficulty double, raw_difficulty double, difficulty_gnn double, difficulty_rnn double, "
    "difficulty_transformer double, gate_gnn double, gate_rnn double, gate_transformer double, "
    "disagreement double, q double"
)


@dataclass
class _Difficulty:
    """Scores with percentile rank q, and what made them."""

    scores: DataFrame
    bundle: Bundle | None
    info: dict[str, Any]


def run_prune(settings: PruneSettings, spark: SparkSession | None = None) -> Summary:
    """Prune a table of sessions; `prune_lib.prune` is this for programs, with frames in and out.

    Args:
        settings: what to prune, to where and how.
        spark: the session to use; None takes the running one or builds one.

    Returns:
        What was done, printable; with `--dry-run` the plan.

    Raises:
        UserError: the settings, the input, the output or the experts cannot be used as they are;
            no table has been touched.
    """
    spark = spark or get_spark("prune")
    check_runtime(spark)
    ship_package(spark)
    folder = settings.checkpoint_folder(loses_executors(str(spark.sparkContext.master)))
    kept = None if settings.dry_run else folder
    with measured_joins(spark), checkpoints(spark, kept), described("prune"):
        return _prune(settings, spark)


def _prune(settings: PruneSettings, spark: SparkSession) -> Summary:
    stages = Stages()
    started = datetime.now(timezone.utc)
    stages.run_id = run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    found = open_input_of(spark, settings)
    seen = check_run(spark, settings, found)
    if settings.dry_run:
        return plan(spark, settings, found)
    experts = check_experts(spark, settings, found)
    table = found or make_demo(spark, settings, stages, settings.seed)
    warn_of_input(table, stages)
    unusual = unusual_names(table.df)
    if unusual:
        stages.warn(
            f"the names of {', '.join(unusual[:5])} need Delta's column mapping: Spark reads the pruned "
            "table, delta-rs does not"
        )
    spark.sparkContext.setJobDescription(f"prune {run_id}")

    begins: datetime | None = None
    with stages.stage("read") as stage:
        if settings.since:
            table, begins = since(table, settings.since)
            _LOG.info("only sessions whose last click is at %s UTC or later", f"{begins:%Y-%m-%d %H:%M:%S}")
        raw = settled_sessions(table)
        stats = check_sessions(table, raw, stages.warn)
        check_order(settings, has_order="ordering" in raw.columns)
        stage.rows = stats.n_sessions
        budget = budget_of(settings, stats)
    with stages.stage("encode") as stage:
        encoded = encode(raw, settings.seed)
        stage.rows = encoded.n_interactions
    bands = popularity_bands(encoded.item_sessions)
    points = encoded  # what is chosen or left
    if settings.unit == "prefix":
        with stages.stage("samples") as stage:
            points = samples_of(encoded, settings.sampling.max_distance)
            stage.rows = points.n_sessions
    floors = _floors(settings, table, raw, points, bands, budget)
    difficulty = _difficulty(settings, table, encoded, stages, experts)
    with stages.stage("graph") as stage:
        graph = _graph(settings, points)
        stage.rows = graph.n_edges
    if difficulty.bundle is None:  # a baseline that asks for no difficulty has none to spread
        x = spark.createDataFrame([], "sid bigint, x double")
    else:
        with stages.stage("propagation") as stage:
            x = _spread(settings, points, graph, difficulty)
            stage.rows = x.count()
    with stages.stage("sampling") as stage:
        suspects = find_suspects(
            graph,
            session_shapes(encoded),
            difficulty.scores,
            settings.suspects,
            points.sessions if points is not encoded else None,
        )
        if settings.method == "graph" and settings.suspects.bots == "last":
            crowd = suspects.crowd(stats.n_sessions, stats.n_interactions)
            if crowd:
                stages.warn(crowd)
        twins = settle(first_twin(points.sessions))
        cold = bands.cold(encoded.item_sessions)
        selection = _select(settings, points, graph, difficulty, x, twins, suspects, floors, cold, budget)
        stage.rows = selection.ranked.count()
    if stage.rows == 0:
        raise SettingsError(
            f"--ratio {settings.ratio:g} keeps nothing: the budget is {budget:,} {settings.counted}, less "
            "than any session costs. Raise --ratio, or count sessions with --budget sessions."
        )
    if selection.spent < WELL_USED * budget:
        stages.warn(
            f"only {selection.spent:,} of the budget of {budget:,} {settings.counted} are used: the next "
            "session in line is too long for the rest"
        )
    if selection.beyond:
        stages.warn(
            f"coverage is complete at {selection.complete:,} {settings.counted}: what the "
            f"{selection.beyond:,} sessions kept beyond could add is less than its arithmetic tells apart, "
            "and they are the easiest of the rest. A smaller --ratio covers as much"
        )
    with stages.stage("explanation") as stage:
        decided = decide(
            points,
            graph,
            selection,
            twins,
            difficulty.scores,
            x,
            suspects.rows,
            method=settings.method != "graph",
        )
        stage.rows = decided.sessions.count()
        if decided.weights.equal is not None:
            stages.warn(
                f"prune_weight is the same of all kept sessions: they hold {decided.weights.equal:,} items, "
                "more than one task can calibrate weights to"
            )
        ids = table.df.schema[table.session_column].dataType
        churn = churn_of(spark, settings.resolved_output, decided.sessions, ids)
    counts = {
        **counts_of(points, graph, decided, selection),
        "bot_limits": astuple(suspects.limits),
        "churn": astuple(churn) if churn else None,
        "since": begins,
    }
    # The kept rows are read once more.
    with stages.stage("write") as stage, reading_errors(table.location, analysed=True, writing=True):
        frames = _frames(settings, table, raw, points, decided, bands, run_id)
        run = run_of(
            spark,
            settings,
            table,
            difficulty.bundle.version if difficulty.bundle else None,
            run_id=run_id,
            started=started,
            counts=counts,
            rounds=selection.records,
            stages=stages,
        )
        frames["runs"] = run_row(spark, run)
        write_tables(spark, frames, settings.resolved_output, {k: run[k] for k in IN_COMMITS}, seen)
        stage.rows = counts["sessions_after"]
    trouble = view_trouble(spark, settings.resolved_output)
    if trouble:
        stages.warn(trouble)
    track(settings, run, stages)
    page = _report(settings, spark, stages) if settings.report else None
    return Summary.of(run, settings.resolved_output, stages, difficulty.info, page)


def _report(settings: PruneSettings, spark: SparkSession, stages: Stages) -> str | None:
    """Write the report of the run; what fails here is a warning, since the tables are there."""
    from prune_lib.report.job import write_report

    try:
        with stages.stage("report"):
            page = write_report(spark, settings.resolved_output, workspace=settings.workspace)
    except Exception as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        stages.warn(f"no report (jobs/report.py writes it later): {first}")
        return None
    for warning in page.warnings:
        stages.warn(f"report: {warning}")
    return str(page.path)


def _floors(
    settings: PruneSettings, table: InputTable, raw: DataFrame, encoded: Encoded, bands: Bands, budget: int
) -> Floors | None:
    """All floors as one; what cannot fit the budget is refused before anything is scored."""
    if settings.method != "graph":
        return None
    if settings.floor:
        check_floor(settings, encoded, budget)
    asked = [parsed(text) for text in settings.floor_by]
    check_floor_columns(table, asked)
    by = floors_by(table, raw, encoded, bands, asked)
    for part in by:
        check_fits(part, encoded, budget, _cost(settings), settings.counted)
    items = item_floors(encoded, settings.floor)
    return joined_floors([items, *by] if items else by)


def _cost(settings: PruneSettings) -> Literal["n", "one"]:
    return "n" if settings.budget == "interactions" else "one"


def _difficulty(
    settings: PruneSettings, table: InputTable, encoded: Encoded, stages: Stages, experts: Bundle | None
) -> _Difficulty:
    """Score every session; train the experts first where there are none for this input."""
    spark = encoded.sessions.sparkSession
    if settings.method != "graph" and settings.method not in NEEDS_DIFFICULTY:
        return _Difficulty(spark.createDataFrame([], _NO_SCORES), None, {})
    from prune_lib.difficulty import percentile_rank, score_digits, score_sessions
    from prune_lib.model_store import ensure_bundle

    bundle = ensure_bundle(settings, table, encoded, stages, experts)
    by_sample = settings.unit == "prefix"
    with stages.stage("difficulty") as stage:
        scored = score_sessions(
            encoded,
            bundle,
            batch_size=settings.batch_size,
            device=settings.device,
            by_sample=by_sample,
            score=settings.score,
            workspace=settings.workspace if settings.reuse_scores else None,
        )
        found = scored.scores
        if by_sample:
            found = found.withColumn("sid", sample_id(F.col("sid"), F.col("length"))).drop("length")
        scores = settle(percentile_rank(found, "difficulty", digits=score_digits(settings.score)))
        scored.unpersist()
        stage.rows = scores.count()
    return _Difficulty(scores, bundle, scored.info.as_dict())


def _graph(settings: PruneSettings, points: Encoded) -> SessionGraph:
    if settings.unit == "session":
        return build_graph(points, settings.sampling)
    return build_graph(windows(points), settings.sampling, last_only=True)


def _spread(
    settings: PruneSettings, encoded: Encoded, graph: SessionGraph, difficulty: _Difficulty
) -> DataFrame:
    """Propagated difficulty rank of every session: sid, x; a session without a score starts in the middle."""
    x = settle(
        encoded.sessions.select("sid")
        .join(difficulty.scores.select("sid", "q"), "sid", "left")
        .select("sid", F.coalesce("q", F.lit(0.5)).alias("x"))
    )
    spread = settings.propagation
    return propagate(graph, x, spread.alpha, spread.rounds, spread.engine)


def _select(
    settings: PruneSettings,
    encoded: Encoded,
    graph: SessionGraph,
    difficulty: _Difficulty,
    x: DataFrame,
    twins: DataFrame,
    suspects: Suspects,
    floors: Floors | None,
    cold: npt.NDArray[np.bool_],
    budget: int,
) -> Selection:
    cost = _cost(settings)
    if settings.method == "graph":
        return select_sessions(
            graph,
            x,
            twins,
            budget=budget,
            cost=cost,
            floors=floors,
            cold=cold,
            settings=settings.sampling,
            suspects=suspects.rows,
            counted=settings.counted,
        )
    price = F.col("n") if cost == "n" else F.lit(1)
    # What costs more than the whole budget could only end it early.
    # D2's neighbours share items, of which a sample has more than its target.
    held = windows(encoded) if settings.unit == "prefix" and settings.method == "d2" else encoded
    affordable = held.sessions.filter(price <= budget)
    scores = difficulty.scores.select("sid", "q", "difficulty", "disagreement")
    sessions = affordable.join(scores, "sid", "left")
    ranked = rank_baseline(settings.method, sessions, seed=settings.seed, cost=cost, ratio=settings.ratio)
    none = F.lit(None).cast("bigint")
    kept = settle(
        take_budget(ranked, budget).select(
            "sid",
            "n",
            "rank",
            F.lit(COVERAGE).alias("phase"),
            F.lit(0).alias("round"),
            none.alias("gain"),
            none.alias("gain_new"),
            none.alias("gain_cold"),
        )
    )
    objective = Objective.empty(graph.weight, cold[graph.item], graph.unit)
    objective.add(*received_by_pattern(graph.adjacency.join(kept.select("sid"), "sid", "left_semi")))
    spent = int((kept.agg(F.sum(price)).first() or [0])[0] or 0)
    return Selection(kept.drop("n"), objective, spent, [])


def _frames(
    settings: PruneSettings,
    table: InputTable,
    raw: DataFrame,
    encoded: Encoded,
    decided: Decided,
    bands: Bands,
    run_id: str,
) -> dict[str, DataFrame]:
    """The three tables of rows, each in its schema."""
    samples = settings.unit == "prefix"
    ids = table.df.schema[table.session_column].dataType
    item_field = table.df.schema[table.item_column].dataType
    items = getattr(item_field, "elementType", item_field)
    chosen = (
        decided.sessions.filter("kept")
        .join(decided.weights.rows, "rank")
        .select(
            F.col("session_id").cast(ids).alias("session_id"),
            *(["length"] if samples else []),
            "rank",
            "reason",
            F.col("q").alias("difficulty"),
            "weight",
        )
    )
    kinds = (ids.simpleString(), items.simpleString())
    if samples:
        pruned = sample_frame(table, chosen, run_id)
        clicks = last_clicks(raw, encoded, settings.sampling.max_distance)
    else:
        pruned, clicks = pruned_frame(table.df, table.session_column, chosen, run_id), raw
    return {
        "pruned": conform(pruned, "pruned", *kinds),
        "decisions": conform(decision_rows(decided, clicks, run_id), "decisions", *kinds),
        "items": conform(item_rows(encoded, decided, bands, run_id), "items", *kinds),
    }
