"""`prune`: the whole way of the data, from a table of sessions to the pruned table and its companions.

read -> encode -> (train) -> difficulty -> graph -> propagation -> sampling -> explanation -> write
"""

from __future__ import annotations

import json
import logging
import platform
import uuid
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from prune_lib.baselines import NEEDS_DIFFICULTY, NEEDS_ORDER, rank_baseline, take_budget
from prune_lib.decisions import Decided, decide, decision_rows, item_rows
from prune_lib.errors import InputError, OutputError, SettingsError
from prune_lib.graph import SessionGraph, build_graph
from prune_lib.popularity import Bands, gini, popularity_bands
from prune_lib.propagation import propagate
from prune_lib.sampling.gains import Objective
from prune_lib.sampling.rounds import received_by_pattern
from prune_lib.sampling.select import COVERAGE, Selection, first_twin, select_sessions
from prune_lib.schemas import RUNS, column_type, conform
from prune_lib.session import check_runtime, get_spark
from prune_lib.sessions.encoding import Encoded, encode
from prune_lib.sessions.reading import (
    ColumnNames,
    InputTable,
    SessionStats,
    check_sessions,
    open_input,
    to_sessions,
)
from prune_lib.settings import PruneSettings, companion, settings_hash
from prune_lib.settle import settle
from prune_lib.stages import Stages
from prune_lib.summary import Summary
from prune_lib.tables import check_output, pruned_frame, write_tables

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle

__all__ = ["prune"]

_LOG = logging.getLogger(__name__)

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


def prune(settings: PruneSettings, spark: SparkSession | None = None) -> Summary:
    """Prune a table of sessions.

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
    stages = Stages()
    started = datetime.now(timezone.utc)
    run_id = f"{started:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    table = _open(spark, settings, stages)
    check_output(spark, settings.resolved_output)
    _refuse_own_output(settings, table)
    if settings.dry_run:
        return _plan(settings, table)
    spark.sparkContext.setJobDescription(f"prune {run_id}")

    with stages.stage("read") as stage:
        raw = settle(to_sessions(table))
        stats = check_sessions(table, raw)
        stage.rows = stats.n_sessions
        _check_order(settings, raw)
        budget = _budget(settings, stats)
    with stages.stage("encode") as stage:
        encoded = encode(raw, settings.seed)
        stage.rows = encoded.n_interactions
    if settings.floor:
        _check_floor(settings, encoded, budget)
    difficulty = _difficulty(settings, table, encoded, stages)
    with stages.stage("graph") as stage:
        graph = build_graph(encoded, settings.sampling)
        stage.rows = graph.n_edges
    with stages.stage("propagation") as stage:
        x = propagate(
            graph,
            settle(
                encoded.sessions.select("sid")
                .join(difficulty.scores.select("sid", "q"), "sid", "left")
                .select("sid", F.coalesce("q", F.lit(0.5)).alias("x"))
            ),
            settings.propagation.alpha,
            settings.propagation.rounds,
        )
        stage.rows = x.count()
    with stages.stage("sampling") as stage:
        twins = settle(first_twin(encoded.sessions))
        bands = popularity_bands(encoded.item_sessions)
        selection = _select(settings, encoded, graph, difficulty, x, twins, bands, budget)
        stage.rows = selection.ranked.count()
    if stage.rows == 0:
        raise SettingsError(
            f"--ratio {settings.ratio:g} keeps nothing: the budget is {budget:,} {settings.budget}, less "
            "than any session costs. Raise --ratio, or count sessions with --budget sessions."
        )
    with stages.stage("explanation") as stage:
        decided = decide(
            encoded, graph, selection, twins, difficulty.scores, x, method=settings.method != "graph"
        )
        stage.rows = decided.sessions.count()
    facts = _facts(settings, encoded, decided, selection, budget)
    with stages.stage("write") as stage:
        frames = _frames(table, raw, encoded, decided, bands, run_id)
        run = {
            "run_id": run_id,
            "started_at": started,
            "finished_at": datetime.now(timezone.utc),
            "method": settings.method,
            "ratio": settings.ratio,
            "budget": settings.budget,
            "seed": settings.seed,
            "settings": settings.model_dump_json(),
            "settings_hash": settings_hash(settings),
            "input": table.location,
            "input_format": table.format,
            "input_version": table.version,
            "experts_version": difficulty.bundle.version if difficulty.bundle else None,
            **facts,
            "stages": [(s.name, s.seconds, s.rows) for s in stages.done],
            "rounds": [
                (r.phase, r.round, r.threshold, r.candidates, r.picked, r.interactions, r.seconds)
                for r in selection.records
            ],
            "warnings": stages.warnings,
            "versions": _versions(spark),
        }
        frames["runs"] = _run_row(spark, run)
        note = ("run_id", "settings_hash", "input_version", "experts_version")
        write_tables(spark, frames, settings.resolved_output, {k: run[k] for k in note})
        stage.rows = facts["sessions_after"]
    _track(settings, run, stages)
    return Summary.of(run, settings, stages, difficulty.info)


def _columns(settings: PruneSettings) -> ColumnNames:
    return ColumnNames(
        session=settings.session_column,
        item=settings.item_column,
        time=settings.time_column,
        order=settings.order_column,
    )


def _open(spark: SparkSession, settings: PruneSettings, stages: Stages) -> InputTable:
    """Open the input; without --input and without a table in the workspace, make the demo data set."""

    def read() -> InputTable:
        return open_input(
            spark,
            settings.resolved_input,
            version=settings.version,
            timestamp=settings.timestamp,
            columns=_columns(settings),
        )

    if settings.input is not None or _exists(spark, settings.resolved_input):
        return read()
    if settings.version is not None or settings.timestamp is not None:
        raise InputError(
            f"There is no table at {settings.resolved_input}, so there is no version of it to read. "
            "Give the table by --input, or leave --version and --timestamp out to generate the demo data."
        )
    if settings.dry_run:
        raise InputError(
            f"There is no table at {settings.resolved_input} and --dry-run makes none. Without --dry-run "
            f"a demo data set of {settings.demo.sessions:,} sessions would be generated there; "
            "or give your own table by --input."
        )
    from prune_lib.sessions.demo import write_demo

    with stages.stage("demo data") as stage:
        _LOG.info(
            "no --input and no table at %s: generating the demo data set of %s sessions there",
            settings.resolved_input,
            f"{settings.demo.sessions:,}",
        )
        write_demo(spark, settings.resolved_input, settings.demo.sessions, seed=settings.seed)
        stage.rows = settings.demo.sessions
    return read()


def _exists(spark: SparkSession, name: str) -> bool:
    """Whether anything is at the place of the workspace's sessions."""
    from prune_lib.settings import is_location

    if not is_location(name):
        return bool(spark.catalog.tableExists(name))
    path = spark._jvm.org.apache.hadoop.fs.Path(name)  # type: ignore[union-attr]
    return bool(path.getFileSystem(spark._jsc.hadoopConfiguration()).exists(path))


def _refuse_own_output(settings: PruneSettings, table: InputTable) -> None:
    """Refuse an output that is the input under another name."""
    places = {_place(table.location)}
    for name in [settings.resolved_output] + [
        companion(settings.resolved_output, c) for c in ("decisions", "items", "runs")
    ]:
        if _place(name) in places:
            raise OutputError(
                f"the output table {name} is the input {table.location}: pruning would overwrite what it "
                "reads. Choose another --output."
            )


def _place(name: str) -> str:
    """A table's place in one spelling: names in lower case, local paths absolute and resolved."""
    from pathlib import Path

    from prune_lib.settings import is_location

    if not is_location(name):
        return name.lower().replace("`", "")
    if name.startswith("file:"):
        name = "/" + name[len("file:") :].lstrip("/")
    return name.rstrip("/") if ":" in name else str(Path(name).resolve())


def _plan(settings: PruneSettings, table: InputTable) -> Summary:
    lines = [
        "Dry run: nothing was computed and no table was touched.",
        table.describe(),
        f"output: {settings.resolved_output}, with _decisions, _items and _runs",
        f"method {settings.method}, {settings.ratio:g} of the {settings.budget}, seed {settings.seed}",
    ]
    if settings.method == "graph" or settings.method in NEEDS_DIFFICULTY:
        from prune_lib.model_store import find_bundle

        bundle = find_bundle(settings, table.location)
        lines.append(
            f"experts: {bundle.path} (version {bundle.version})"
            if bundle
            else "experts: none for this input yet; they would be trained first"
        )
    return Summary("\n".join(lines))


def _check_order(settings: PruneSettings, raw: DataFrame) -> None:
    if settings.method in NEEDS_ORDER and "ordering" not in raw.columns:
        raise InputError(
            f"--method {settings.method} needs to know which sessions are new, and the input has neither "
            "times nor an order. Name a column by --time-column or --order-column."
        )


def _budget(settings: PruneSettings, stats: SessionStats) -> int:
    total = stats.n_interactions if settings.budget == "interactions" else stats.n_sessions
    # The nearest decimal first: 0.07 * 100 must be 7, not the 7.000000000000001 or 6.99 of floats.
    budget = int(np.floor(round(settings.ratio * total, 6)))
    if budget < 1:
        raise SettingsError(
            f"--ratio {settings.ratio:g} of {total:,} {settings.budget} is less than one: nothing would be "
            "kept. Raise --ratio."
        )
    return budget


def _check_floor(settings: PruneSettings, encoded: Encoded, budget: int) -> None:
    """A floor that cannot fit is refused before anything runs: a click serves one item."""
    if settings.budget != "interactions":
        return
    wanted = int((encoded.item_sessions >= settings.floor).sum()) * settings.floor
    if wanted > budget:
        raise SettingsError(
            f"--floor {settings.floor} does not fit --ratio {settings.ratio:g}: it needs at least {wanted:,} "
            f"interactions, and the budget is {budget:,}. Raise --ratio to "
            f"{np.ceil(1000 * wanted / encoded.n_interactions) / 1000:g} or more, or lower --floor."
        )


def _difficulty(settings: PruneSettings, table: InputTable, encoded: Encoded, stages: Stages) -> _Difficulty:
    """Score every session; train the experts first where there are none for this input."""
    spark = encoded.sessions.sparkSession
    if settings.method != "graph" and settings.method not in NEEDS_DIFFICULTY:
        return _Difficulty(spark.createDataFrame([], _NO_SCORES), None, {})
    from prune_lib.difficulty import percentile_rank, score_sessions
    from prune_lib.model_store import ensure_bundle

    bundle = ensure_bundle(settings, table, encoded, stages)
    with stages.stage("difficulty") as stage:
        scored = score_sessions(encoded, bundle, batch_size=settings.batch_size, device=settings.device)
        scores = settle(percentile_rank(scored.scores, "difficulty"))
        scored.unpersist()
        stage.rows = scores.count()
    return _Difficulty(scores, bundle, scored.info.as_dict())


def _select(
    settings: PruneSettings,
    encoded: Encoded,
    graph: SessionGraph,
    difficulty: _Difficulty,
    x: DataFrame,
    twins: DataFrame,
    bands: Bands,
    budget: int,
) -> Selection:
    cost: Literal["n", "one"] = "n" if settings.budget == "interactions" else "one"
    cold = bands.cold(encoded.item_sessions)
    if settings.method == "graph":
        return select_sessions(
            encoded,
            graph,
            x,
            twins,
            budget=budget,
            cost=cost,
            floor=settings.floor,
            cold=cold,
            settings=settings.sampling,
        )
    sessions = encoded.sessions.join(difficulty.scores.select("sid", "q", "difficulty"), "sid", "left")
    ranked = rank_baseline(settings.method, sessions, seed=settings.seed, cost=cost)
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
    price = F.sum("n") if cost == "n" else F.count(F.lit(1))
    spent = int((kept.agg(price).first() or [0])[0] or 0)
    return Selection(kept.drop("n"), objective, spent, [])


def _facts(
    settings: PruneSettings, encoded: Encoded, decided: Decided, selection: Selection, budget: int
) -> dict[str, Any]:
    """Counts of the run: one pass over the sessions, one over the clicks."""
    sessions = decided.sessions
    groups = (
        sessions.groupBy("group")
        .agg(F.count(F.lit(1)).alias("all"), F.count_if("kept").alias("kept"))
        .agg(
            F.sum(F.col("all") - 1).alias("duplicates_before"),
            F.sum(F.greatest(F.col("kept") - 1, F.lit(0))).alias("duplicates_after"),
        )
        .first()
    )
    by_reason = (
        sessions.groupBy("reason", "kept")
        .agg(F.count(F.lit(1)).alias("n"), F.sum("n").alias("clicks"))
        .collect()
    )
    clicks_after = np.zeros(encoded.n_items, dtype=np.int64)
    kept_items = (
        sessions.filter("kept").select(F.explode("items").alias("idx")).groupBy("idx").count().toPandas()
    )
    clicks_after[kept_items["idx"].to_numpy()] = kept_items["count"].to_numpy()
    items_after = int((clicks_after > 0).sum())
    assert groups is not None
    return {
        "sessions_before": encoded.n_sessions,
        "sessions_after": sum(int(r["n"]) for r in by_reason if r["kept"]),
        "interactions_before": encoded.n_interactions,
        "interactions_after": sum(int(r["clicks"]) for r in by_reason if r["kept"]),
        "items_before": encoded.n_items,
        "items_after": items_after,
        "item_coverage": items_after / encoded.n_items,
        "gini_before": gini(encoded.item_interactions),
        "gini_after": gini(clicks_after),
        "duplicates_before": int(groups["duplicates_before"]),
        "duplicates_after": int(groups["duplicates_after"]),
        "objective": selection.objective.value(),
        "reasons": {str(r["reason"]): int(r["n"]) for r in by_reason},
    }


def _frames(
    table: InputTable,
    raw: DataFrame,
    encoded: Encoded,
    decided: Decided,
    bands: Bands,
    run_id: str,
) -> dict[str, DataFrame]:
    """The three tables of rows, each in its schema."""
    ids = table.df.schema[table.session_column].dataType
    item_field = table.df.schema[table.item_column].dataType
    items = getattr(item_field, "elementType", item_field)
    chosen = (
        decided.sessions.filter("kept")
        .join(decided.weights, "rank")
        .select(
            F.col("session_id").cast(ids).alias("session_id"),
            "rank",
            "reason",
            F.col("q").alias("difficulty"),
            "weight",
        )
    )
    kinds = (ids.simpleString(), items.simpleString())
    return {
        "pruned": conform(pruned_frame(table.df, table.session_column, chosen, run_id), "pruned", *kinds),
        "decisions": conform(decision_rows(decided, raw, run_id), "decisions", *kinds),
        "items": conform(item_rows(encoded, decided, bands, run_id), "items", *kinds),
    }


def _run_row(spark: SparkSession, run: dict[str, Any]) -> DataFrame:
    schema = ", ".join(f"`{c.name}` {column_type(c, 'string', 'string')}" for c in RUNS)
    row = [run[c.name] for c in RUNS]
    return conform(spark.createDataFrame([row], schema), "runs", "string", "string")


def _versions(spark: SparkSession) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version(), "spark": spark.version}
    for name in ("prune-lib", "delta-spark", "graphframes-py", "numpy", "torch", "petastorm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _track(settings: PruneSettings, run: dict[str, Any], stages: Stages) -> None:
    """Log the run to MLflow where it is installed; what fails there never fails the run."""
    from prune_lib.tracking import tracked_run

    params = {
        k: run[k] for k in ("method", "ratio", "budget", "seed", "input", "input_version", "experts_version")
    }
    numbers = {k: float(v) for k, v in run.items() if isinstance(v, int | float) and k not in params}
    with tracked_run(settings.workspace, "prune", run["run_id"], params) as tracker:
        tracker.metrics(numbers)
        tracker.metrics({f"seconds_{s.name.replace(' ', '_')}": s.seconds for s in stages.done})
        tracker.dict(json.loads(run["settings"]), "settings.json")
    stages.warnings.extend(tracker.warnings)
