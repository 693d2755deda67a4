"""An evaluation: how much of the performance the kept sessions carry, for every method, ratio and target.

split -> prune -> subsets -> choose how targets are trained, on validation -> train and rank -> tables
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pyspark.sql import SparkSession

from prune_lib.errors import InputError, SettingsError
from prune_lib.evaluation.cells import CellStore, import_cells
from prune_lib.evaluation.command import asked_by
from prune_lib.evaluation.data import make_split, read_test
from prune_lib.evaluation.files import Split, Subset, budget_of, mark_used, remove_unused
from prune_lib.evaluation.metrics import value_by_rank
from prune_lib.evaluation.plan import (
    BY_RATIO,
    TUNING_RATIO,
    Candidate,
    Plan,
    Row,
    candidates,
    chosen,
    for_a_tenth,
)
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.subsets import check_kept, experts_folder, prune_once, subset_of, write_prefixes
from prune_lib.evaluation.targets.settings import NEURAL
from prune_lib.evaluation.variants import check_ablations, named
from prune_lib.evaluation.worker import run_cells
from prune_lib.locations import workspace_folder
from prune_lib.preflight import columns_of, make_demo, open_input_of
from prune_lib.session import check_runtime, get_spark, measured_joins, ship_package
from prune_lib.sessions.columns import ColumnNames, InputTable
from prune_lib.sessions.reading import open_input
from prune_lib.settings import PruneSettings
from prune_lib.settings.fields import Method
from prune_lib.stages import Stages

if TYPE_CHECKING:
    from prune_lib.evaluation.output import Findings

__all__ = ["Evaluation", "run_evaluation", "working_folder"]

_LOG = logging.getLogger(__name__)


@dataclass
class Evaluation:
    """An evaluation under way: what its steps share.

    Attributes:
        settings: what was asked for.
        spark: the session.
        folder: of this data set's working files; everything in it can be made again.
        store: results of cells.
        command: how it was asked for, as its record says.
        stages: what the steps took.
    """

    settings: EvaluateSettings
    spark: SparkSession
    folder: Path
    store: CellStore
    command: str = ""
    stages: Stages = field(default_factory=Stages)

    def run(self, plan: Plan, name: str) -> None:
        """Run what of a plan is not done yet."""
        missing = self.store.missing(job.cell for job in plan.jobs.values())
        jobs = [plan.jobs[cell.id] for cell in missing]
        with self.stages.stage(name) as stage:
            if len(jobs) < len(plan.jobs):
                _LOG.info("%d of %d cells are done already", len(plan.jobs) - len(jobs), len(plan.jobs))
            settings = self.settings
            run_cells(jobs, self.store, processes=settings.processes, device=settings.device)
            stage.rows = len(jobs)

    def recall(self, row: Row) -> float:
        """Recall@20 of a row whose cell is done."""
        ranks = self.store.get(row.cell).ranks
        return float(value_by_rank()["recall@20"][ranks.clip(max=21)].mean())

    def full(self, split: Split) -> Subset:
        """All training sessions of a split.

        Raises:
            InputError: none of them has two clicks.
        """
        folder = split.folder / "subsets" / "all"
        subset = subset_of(self.spark, split, None, 1.0, folder, self.settings.fit.max_length)
        if not subset.targets:
            raise InputError(
                "no session of the training data has two clicks: there is nothing to learn from."
            )
        return subset

    def pruned(self, split: Split, method: Method, seed: int, ratios: Iterable[float]) -> Pruned:
        """Subsets of a method at several ratios, from one pruning run at the largest where its ranks nest.

        Raises:
            SettingsError: a ratio leaves nothing to learn from.
        """
        ratios = sorted(ratios)
        name = f"{method}-{seed}"

        def at(ratio: float) -> PruneSettings:
            return self.settings.prune_settings(
                method,
                seed,
                ratio,
                split.sessions,
                str(split.folder / "pruned" / f"{name}-{ratio:g}" / "pruned"),
                experts_folder(split),
                has_order=split.has_order,
            )

        # Each ratio is a run of its own where a cut of a larger one would be another choice.
        own = ratios if method in BY_RATIO else ratios[-1:]
        runs = {ratio: prune_once(self.spark, at, split, ratio) for ratio in own}
        subsets, seconds = dict[float, Subset](), dict[float, float]()
        for ratio in ratios:
            table, took = runs.get(ratio, runs[ratios[-1]])
            subsets[ratio] = subset_of(
                self.spark,
                split,
                table,
                ratio,
                split.folder / "subsets" / f"{name}-{ratio:g}",
                self.settings.fit.max_length,
            )
            seconds[ratio] = sum(took.values())
            budget = budget_of(ratio, split.n_interactions)
            who = f"the method {method} (seed {seed})"
            check_kept(subsets[ratio], who, ratio, budget, warn=self.stages.warn)
        return Pruned(method, seed, subsets, seconds)


@dataclass(frozen=True)
class Pruned:
    """What a method keeps under one seed.

    Attributes:
        method: the method.
        seed: of the run.
        subsets: by ratio.
        seconds: by ratio, what the pruning run took that its subset is of.
    """

    method: Method
    seed: int
    subsets: dict[float, Subset]
    seconds: dict[float, float]


def run_evaluation(settings: EvaluateSettings, spark: SparkSession | None = None) -> Findings:
    """Evaluate pruning on a data set.

    Args:
        settings: what to compare, on which data, how.
        spark: the session to use; None takes the running one or builds one.

    Returns:
        What was found, printable; with `dry_run` the plan.

    Raises:
        UserError: the settings or the data cannot be used as they are, or there is no GPU; no table of
            results was touched.
    """
    check_ablations(settings.ablations)
    _check_tuned(settings)
    if settings.device == "cuda" and set(settings.targets) & set(NEURAL):
        from prune_lib.experts.devices import pick_device

        pick_device(settings.device)
    folder = working_folder(settings)
    spark = spark or get_spark("evaluate")
    check_runtime(spark)
    ship_package(spark)
    with measured_joins(spark):
        return _evaluate(settings, spark, folder)


def _evaluate(settings: EvaluateSettings, spark: SparkSession, folder: Path) -> Findings:
    from prune_lib.evaluation.ablations import run_ablations
    from prune_lib.evaluation.output import Findings, cells_file, check_places, write_results

    found = _open_input(spark, settings)
    check_places(spark, settings)
    test = None
    if settings.test is not None:
        test = read_test(spark, settings.test, columns_of(settings))
    tuned = {target for target in settings.targets if target in NEURAL}
    to_choose = len(candidates(settings)) > 1 and bool(tuned)
    if found is not None:
        _check_order(settings, found, to_choose)
    if settings.dry_run:
        return Findings(_plan_in_words(settings, found))
    folder.mkdir(parents=True, exist_ok=True)
    # Now: a file of settings can be another one by the end.
    run = Evaluation(settings, spark, folder, CellStore(folder / "cells"), asked_by(settings))
    import_cells(run.store, cells_file(settings))
    started = time.monotonic()
    table = found or make_demo(spark, _as_demo(settings), run.stages, settings.seed)
    with run.stages.stage("data") as stage:
        share = settings.validation_share
        test_split = make_split(spark, table, test, folder, name="test", share=share, warn=run.stages.warn)
        stage.rows = test_split.n_sessions
    validation = None
    if settings.split == "validation" or to_choose:
        with run.stages.stage("validation data"):
            order = "place" if test_split.has_order else None
            again = open_input(
                spark, test_split.sessions, columns=ColumnNames("session_id", "items", None, order)
            )
            validation = make_split(spark, again, None, folder, name="validation", share=share)
    split = validation if settings.split == "validation" else test_split
    assert split is not None
    _check_ratios(settings, split)
    splits = [one.folder for one in (test_split, validation) if one is not None]
    for one in splits:
        mark_used(one)
    # Before anything is trained: a ratio may leave nothing to learn from.
    full, kept = _prune(run, split)
    tuning: list[Row] = []
    how: dict[str, Candidate] = dict.fromkeys(tuned, candidates(settings)[0])
    if to_choose:
        assert validation is not None
        how, tuning = _choose(run, validation, sorted(tuned))
    plan = _compare(run, split, full, kept, how)
    run_ablations(run, split, plan, how)
    run.run(plan, "targets")
    tuned_on = (validation, tuning) if validation is not None and tuning else None
    written = write_results(run, split, plan, tuned_on, how, time.monotonic() - started)
    remove_unused(folder, splits)
    return written


def working_folder(settings: EvaluateSettings) -> Path:
    """Folder of a data set's working files.

    Raises:
        SettingsError: the workspace is no folder.
    """
    folder = workspace_folder(settings.workspace)
    if folder is None:
        raise SettingsError(
            f"the workspace {settings.workspace} is no folder of this machine, and an evaluation trains its "
            "targets on files. Give a folder (such as a volume's path) by --workspace; the tables of results "
            "can still go to the catalog by --output."
        )
    return folder / "evaluate" / settings.data_set


def _open_input(spark: SparkSession, settings: EvaluateSettings) -> InputTable | None:
    """The input; None where the demo data set is to be made."""
    if settings.input is None:
        return open_input_of(spark, _as_demo(settings))
    return open_input(spark, settings.input, columns=columns_of(settings))


def _as_demo(settings: EvaluateSettings) -> PruneSettings:
    """The settings by which pruning would read or make the workspace's own sessions."""
    return PruneSettings(
        ratio=1.0,
        workspace=settings.workspace,
        seed=settings.seed,
        session_column=settings.session_column,
        item_column=settings.item_column,
        time_column=settings.time_column,
        order_column=settings.order_column,
        demo=settings.demo,
    )


def _check_tuned(settings: EvaluateSettings) -> None:
    """Refuse the regime `tuned` where no length is: its rows would be those of `steps` under another name.

    Raises:
        SettingsError: a length is given, or nothing is tried at all.
    """
    if "tuned" not in settings.regimes or (not settings.fit.steps and len(candidates(settings)) > 1):
        return
    why = "one learning rate and one length are tried"
    if settings.fit.steps:
        why = f"--fit-steps {settings.fit.steps:,} is given" + (" by --quick" if settings.quick else "")
    raise SettingsError(
        "--regimes tuned asks for lengths of training chosen on validation, and there is nothing to choose "
        f"from: {why}. Leave `tuned` out, or give several of --fit-epochs-tried in its place."
    )


def _check_order(settings: EvaluateSettings, table: InputTable, to_choose: bool) -> None:
    """Refuse an input that ranks no session from old to new where the newest are to be held out.

    Raises:
        InputError: with what the user can do about it.
    """
    if table.time_column is not None or table.order_column is not None:
        return
    ways = ["Name a column by --time-column or --order-column"]
    if settings.split == "validation":
        why = "the validation split is its newest sessions"
    elif settings.test is None:
        why = "no --test is given, so that its newest sessions are the test"
        ways.append("or give a test")
    elif to_choose:
        why = "learning rate and length of the neural targets are chosen on its newest sessions"
        ways.append("or give both (--fit-learning-rate and --fit-steps)")
        ways.append("or only --targets that count (item-knn, session-knn, markov)")
    else:
        return
    raise InputError(
        f"{table.location} has neither times nor an order of its sessions, and {why}. {', '.join(ways)}."
    )


def _check_ratios(settings: EvaluateSettings, split: Split) -> None:
    """Refuse a ratio that leaves no session to learn from, before anything is trained.

    Raises:
        SettingsError: with the least ratio that could do.
    """
    for ratio in settings.shares:
        if budget_of(ratio, split.n_interactions) < 2:
            raise SettingsError(
                f"--ratios {ratio:g} allows {budget_of(ratio, split.n_interactions)} of "
                f"{split.n_interactions:,} interactions, and a session to learn from has two: "
                f"{2 / split.n_interactions:.2g} would be the least, and more is better."
            )


def _warn_of_edge(run: Evaluation, how: dict[str, Candidate], tried: list[Candidate]) -> None:
    """Say whose choice lies at the edge of what was tried: a longer training might do better."""
    longest = max(c.passes for c in tried)
    at_edge = [target for target, choice in how.items() if choice.longest and choice.longest == longest]
    if at_edge:
        run.stages.warn(
            f"the longest training tried ({longest:g} passes) is the best for all the data of "
            f"{', '.join(at_edge)}; a longer one may be better still, and shares of all the data's "
            "performance smaller. Try more by --fit-epochs-tried."
        )


def _choose(run: Evaluation, split: Split, targets: list[str]) -> tuple[dict[str, Candidate], list[Row]]:
    """Each target's learning rate and length: the best on validation for all data and a random subset."""
    settings = run.settings
    with run.stages.stage("validation subsets"):
        full = run.full(split)
        try:
            tenth = run.pruned(split, "random", settings.seed, [TUNING_RATIO]).subsets[TUNING_RATIO]
        except SettingsError as error:
            raise SettingsError(
                f"learning rates and lengths are tried on {TUNING_RATIO:g} of the validation split's "
                "training data too, which is too little here. Give --fit-learning-rate and --fit-steps, or "
                f"more sessions. ({error})"
            ) from error
    plan = Plan(settings, split, full)
    tried = candidates(settings)

    def add(target: str, candidate: Candidate, subset: Subset, method: str, ratio: float) -> Row:
        length = f"passes={candidate.passes:g}" if candidate.passes else f"steps={candidate.steps}"
        return plan.add(
            subset,
            target,
            method=method,
            ratio=ratio,
            seed=settings.seed,
            regime="tuning",
            variant=f"lr={candidate.learning_rate:g}, {length}",
            candidate=candidate,
        )

    on_all = {t: {c: add(t, c, full, "all", 1.0) for c in tried} for t in targets}
    on_tenth = {t: {c: add(t, c, tenth, "random", TUNING_RATIO) for c in for_a_tenth(tried)} for t in targets}
    run.run(plan, "choosing on validation")
    how = {}
    for target in targets:
        how[target] = chosen(
            {c: run.recall(row) for c, row in on_all[target].items()},
            {c: run.recall(row) for c, row in on_tenth[target].items()},
        )
        _LOG.info("%s: %s", target, how[target])
    _warn_of_edge(run, how, tried)
    return how, plan.rows


def _seeds(settings: EvaluateSettings) -> range:
    return range(settings.seed, settings.seed + settings.seeds)


def _prune(run: Evaluation, split: Split) -> tuple[Subset, list[Pruned]]:
    """All sessions, and what each method keeps under each seed."""
    settings = run.settings
    with run.stages.stage("pruning") as stage:
        full = run.full(split)
        kept = [
            run.pruned(split, method, seed, settings.shares)
            for method in settings.compared
            for seed in _seeds(settings)
            if settings.shares
        ]
        stage.rows = sum(len(pruned.subsets) for pruned in kept)
    return full, kept


def _compare(
    run: Evaluation, split: Split, full: Subset, kept: Sequence[Pruned], how: dict[str, Candidate]
) -> Plan:
    """The plan of methods, ratios, targets, regimes and seeds."""
    settings = run.settings
    if "prefixes" in settings.samples and how:
        with run.stages.stage("prefixes"):
            for subset in [full, *(s for pruned in kept for s in pruned.subsets.values())]:
                write_prefixes(run.spark, subset, split.n_items, settings.fit.max_length)
    plan = Plan(settings, split, full)

    def add(subset: Subset, method: str, ratio: float, seed: int, seconds: float) -> None:
        for target in settings.targets:
            for samples in settings.samples if target in NEURAL else ("positions",):
                for regime in settings.regimes:
                    plan.add(
                        subset,
                        target,
                        method=method,
                        ratio=ratio,
                        seed=seed,
                        regime=regime,
                        samples=samples,
                        candidate=how.get(target),
                        prune_seconds=seconds,
                    )

    for seed in _seeds(settings):
        add(full, "all", 1.0, seed, 0.0)
    for pruned in kept:
        for ratio, subset in pruned.subsets.items():
            add(subset, pruned.method, ratio, pruned.seed, pruned.seconds[ratio])
    return plan


def _plan_in_words(settings: EvaluateSettings, table: InputTable | None) -> str:
    neural = [t for t in settings.targets if t in NEURAL]
    subsets = len(settings.compared) * len(settings.shares) + 1
    cells = settings.seeds * subsets * len(settings.regimes) * len(settings.samples) * len(neural)
    variants = named(settings.ablations) if settings.shares else {}
    # In one regime; prefixes are chosen one by one at random, too.
    chosen_by = sum(2 if variant.unit == "prefix" else 1 for variant in variants.values())
    cells += settings.seeds * chosen_by * len(settings.shares) * len(neural)
    tried = candidates(settings)
    on_validation = len(tried) + len(for_a_tenth(tried))  # of all the data, and of a random tenth
    lines = [
        "Dry run: nothing was computed and no table was touched.",
        table.describe()
        if table
        else f"input {settings.resolved_input}: not there yet; the demo data set would be made there",
        f"test: {settings.test or f'the newest {settings.validation_share:g} of the input'}",
        f"split {settings.split}; results as {settings.data_set!r} in {settings.resolved_output}",
        f"methods {', '.join(settings.compared)}; ratios {', '.join(map(str, settings.shares))} and 1",
        *([f"ablations {', '.join(variants)}"] if variants else []),
        f"targets {', '.join(settings.targets)}; {settings.seeds} seeds; at most {cells:,} trainings of "
        "neural targets" + (f", after {on_validation * len(neural)} on validation" if len(tried) > 1 else ""),
        f"report: {settings.resolved_document}/results.md",
    ]
    return "\n".join(lines)
