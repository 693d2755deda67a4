"""Ablations: the method with one of its pieces taken out, reversed or made stronger.

They share what they can: the input is encoded once a seed, sessions are scored once by each gate, and only
what a variant changes is computed again. Each gives a Delta table of kept sessions in order of choice, cut
and trained on as any pruned table.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.difficulty import percentile_rank, score_digits, score_sessions
from prune_lib.errors import SettingsError
from prune_lib.evaluation.files import Split, Subset, budget_of
from prune_lib.evaluation.forms import Materials, formed
from prune_lib.evaluation.plan import Candidate, Plan
from prune_lib.evaluation.subsets import check_kept, cut, experts_folder, prune_once, write_subset
from prune_lib.evaluation.targets.settings import NEURAL
from prune_lib.evaluation.variants import Variant, named
from prune_lib.experts.bundle import Bundle
from prune_lib.experts.settings import EXPERTS, Score
from prune_lib.graph import SessionGraph, build_graph
from prune_lib.model_store import ensure_bundle
from prune_lib.popularity import popularity_bands
from prune_lib.propagation import propagate
from prune_lib.sampling.floors import item_floors
from prune_lib.sampling.select import FLOOR, first_twin, select_sessions
from prune_lib.sessions.columns import ColumnNames
from prune_lib.sessions.encoding import Encoded, encode
from prune_lib.sessions.reading import open_input, settled_sessions
from prune_lib.settings import PruneSettings
from prune_lib.settle import settle
from prune_lib.suspects import find_suspects, session_shapes
from prune_lib.weights import session_weights

if TYPE_CHECKING:
    from prune_lib.evaluation.job import Evaluation

__all__ = ["run_ablations", "shuffled", "with_gate"]

_LOG = logging.getLogger(__name__)

# Places between two sessions, for their samples: no session has as many clicks.
_PLACES = 2**20
# Digits of a difficulty that is drawn: few sessions of a million draw the same.
_DRAWN_DIGITS = 6


def with_gate(bundle: Bundle, difficulty: str) -> Bundle:
    """The experts with another gate: uniform, or all weight on one of them; or with the folds swapped.

    Args:
        bundle: trained experts.
        difficulty: uniform, gnn, rnn, transformer, or memory (each session is scored by the fold that was
            trained on it).
    """
    import torch

    files = dict(bundle.files)
    if difficulty == "memory":
        for part in ("experts", "gate"):
            names = [f"{part}-fold{fold}.safetensors" for fold in (0, 1)]
            files[names[0]], files[names[1]] = bundle.files[names[1]], bundle.files[names[0]]
        return Bundle(files)
    for fold in (0, 1):
        mixture = bundle.mixture(fold)
        last = mixture.gate.last
        with torch.no_grad():
            last.weight.zero_()
            # e^-50 is nothing beside 1, and nothing is lost to rounding.
            last.bias.copy_(torch.tensor([50.0 if e == difficulty else 0.0 for e in EXPERTS]))
        files[f"experts-fold{fold}.safetensors"], files[f"gate-fold{fold}.safetensors"] = mixture.to_bytes()
    return Bundle(files)


class _Bench:
    """What the variants of one seed share: the encoded input, experts, scores, the graph."""

    def __init__(self, run: Evaluation, split: Split, settings: PruneSettings) -> None:
        self.run = run
        self.split = split
        self.settings = settings
        columns = ColumnNames("session_id", "items", None, "place" if split.has_order else None)
        self.table = open_input(run.spark, split.sessions, columns=columns)

    @cached_property
    def encoded(self) -> Encoded:
        return encode(settled_sessions(self.table), self.settings.seed)

    @cached_property
    def bundle(self) -> Bundle:
        return ensure_bundle(self.settings, self.table, self.encoded, self.run.stages)

    @cached_property
    def twins(self) -> DataFrame:
        return settle(first_twin(self.encoded.sessions))

    @cached_property
    def _graphs(self) -> dict[str, SessionGraph]:
        return {}

    @cached_property
    def _found(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _ranks(self) -> dict[str, DataFrame]:
        return {}

    def graph(self, sampling: Any) -> SessionGraph:
        """The graph of some sampling settings; kappa and the sampler do not change it."""
        key = sampling.model_dump_json(exclude={"kappa", "sampler", "task_edges"})
        if key not in self._graphs:
            self._graphs[key] = build_graph(self.encoded, sampling)
        return self._graphs[key]

    def rank(self, difficulty: str) -> DataFrame:
        """Sid, q of a kind of difficulty; scored once and kept on disk beside the split."""
        if difficulty == "shuffled":
            return settle(shuffled(self.encoded.sessions))
        if difficulty not in self._ranks:
            source = "mixture" if difficulty == "raw" else difficulty
            column = "raw_difficulty" if difficulty == "raw" else "difficulty"
            digits = score_digits(_score_of(source))
            ranked = percentile_rank(self._scores(source), column, digits=digits)
            self._ranks[difficulty] = settle(ranked.select("sid", "q"))
        return self._ranks[difficulty]

    def _scores(self, source: str) -> DataFrame:
        score = _score_of(source)
        same = source == "mixture" or score != "nll"
        bundle = self.bundle if same else with_gate(self.bundle, source)
        # Beside the experts, in a folder of this code's: other code may score otherwise.
        place = str(Path(experts_folder(self.split)) / "scores_of_ablations" / f"{source}-{bundle.version}")
        spark = self.run.spark
        if not (Path(place) / "_SUCCESS").is_file():
            settings = self.settings
            scored = score_sessions(
                self.encoded, bundle, batch_size=settings.batch_size, device=settings.device, score=score
            )
            scored.scores.select("sid", "difficulty", "raw_difficulty").write.mode("overwrite").parquet(place)
            scored.unpersist()
        return spark.read.parquet(place)

    def choose(self, variant: Variant, ratio: float) -> DataFrame:
        """Kept sessions: session_id, items, place, prune_rank, phase."""
        sampling = self.settings.sampling.model_copy(update=dict(variant.sampling))
        spreading = self.settings.propagation.model_copy(update=dict(variant.propagation))
        graph = self.graph(sampling)
        rank = self.rank(variant.difficulty)
        q = (
            self.encoded.sessions.select("sid")
            .join(rank, "sid", "left")
            .select("sid", F.coalesce("q", F.lit(0.5)).alias("x"))
        )
        suspects = self.settings.suspects.model_copy(update=dict(variant.suspects))
        aside = find_suspects(graph, session_shapes(self.encoded), rank, suspects).rows
        bands = popularity_bands(self.encoded.item_sessions)

        def spread(own: DataFrame) -> DataFrame:
            return propagate(graph, own, spreading.alpha, spreading.rounds, spreading.engine)

        def select(by: SessionGraph, x: DataFrame) -> DataFrame:
            return select_sessions(
                by,
                x,
                self.twins,
                budget=budget_of(ratio, self.split.n_interactions),
                cost="n",
                floors=item_floors(self.encoded, variant.floor),
                cold=bands.cold(self.encoded.item_sessions),
                settings=sampling,
                suspects=aside,
            ).ranked

        x = spread(settle(q))
        by = graph
        if variant.form:
            materials = Materials(self.encoded, self.bundle, sampling, spread, select, self._found)
            by, x = formed(variant.form, materials, graph, x)
        chosen = select(by, x).join(self.encoded.sessions.select("sid", "session_id"), "sid")
        rows: DataFrame = self.run.spark.read.format("delta").load(self.split.sessions)
        return rows.join(
            chosen.select("session_id", F.col("rank").alias("prune_rank"), "phase"), "session_id"
        )

    def copies(self, kept: DataFrame, ratio: float) -> DataFrame:
        """The kept sessions of a ratio, each as often as its weight says: as `sample_rows` has samples."""
        some = settle(cut(kept, budget_of(ratio, self.split.n_interactions)))
        ranked = some.select(F.col("prune_rank").alias("rank"), "items")
        weights = session_weights(ranked, self.encoded.item_sessions, self.encoded.n_sessions).rows
        # What is left of a weight is a chance, drawn by the session's own hash.
        chance = F.pmod(F.xxhash64(F.lit("copies"), "session_id"), F.lit(2**20)) / 2**20
        times = (F.floor("weight") + (chance < F.col("weight") - F.floor("weight")).cast("int")).cast("int")
        return (
            some.join(weights.withColumnRenamed("rank", "prune_rank"), "prune_rank")
            .withColumn("copy", F.explode(F.sequence(F.lit(1), times)))
            .select(
                F.concat_ws("#", F.col("session_id").cast("string"), "copy").alias("session_id"),
                "items",
                (F.col("place") * F.lit(_PLACES) + F.col("copy")).alias("place"),
            )
        )


def shuffled(sessions: DataFrame) -> DataFrame:
    """Ranks in (0, 1) that are drawn by hash and say nothing of a session.

    Args:
        sessions: sid, tie BIGINT.

    Returns:
        sid, q DOUBLE.
    """
    # A share of 1: `percentile_rank` counts in digits after the point, which a whole hash would overflow.
    steps = 10**_DRAWN_DIGITS
    share = F.pmod(F.xxhash64(F.lit("shuffled"), "tie"), F.lit(steps)) / steps
    drawn = sessions.select("sid", share.alias("difficulty"))
    return percentile_rank(drawn, "difficulty", digits=_DRAWN_DIGITS).select("sid", "q")


def _score_of(source: str) -> Score:
    """The score of a variant's difficulty; all but the named ones are log-likelihoods."""
    known: dict[str, Score] = {name: name for name in get_args(Score)}
    return known.get(source, "nll")


def run_ablations(run: Evaluation, split: Split, plan: Plan, how: Mapping[str, Candidate]) -> None:
    """Add the ablations that the settings name to a plan: regime steps, all positions.

    Args:
        run: the evaluation.
        split: what it works on.
        plan: gets a row for every variant, ratio, target and seed.
        how: each neural target's learning rate and length.
    """
    settings = run.settings
    variants = named(settings.ablations)
    if not variants or not settings.shares:
        return
    with run.stages.stage("ablations") as stage:
        for seed in range(settings.seed, settings.seed + settings.seeds):
            pruning = settings.prune_settings(
                "graph",
                seed,
                settings.shares[-1],
                split.sessions,
                str(split.folder / "pruned" / f"ablations-{seed}" / "pruned"),
                experts_folder(split),
                has_order=split.has_order,
            )
            bench = _Bench(run, split, pruning)
            for name, variant in variants.items():
                if variant.unit == "prefix":
                    _add_prefixes(run, split, plan, how, name, seed)
                    continue
                try:
                    kept = bench.choose(variant, settings.shares[-1])
                    price = _floor_price(kept) if variant.floor else 0
                except SettingsError as error:  # a floor beyond the budget, a form without what it needs
                    run.stages.warn(f"ablation {name} is left out: {error}")
                    continue
                for ratio in settings.shares:
                    try:
                        _check_floor(price, budget_of(ratio, split.n_interactions))
                        subset = _subset_of(bench, name, variant, ratio, kept)
                    except SettingsError as error:
                        run.stages.warn(f"ablation {name} is left out at the ratio {ratio:g}: {error}")
                        continue
                    for target in settings.targets:
                        plan.add(
                            subset,
                            target,
                            method="graph",
                            variant=name,
                            ratio=ratio,
                            seed=seed,
                            regime=settings.regimes[0],
                            candidate=how.get(target),
                        )
        stage.rows = len(variants)


def _floor_price(kept: DataFrame) -> int:
    """Interactions of the sessions that a floor chose: they come first in every cut of the ranking."""
    price = kept.filter(F.col("phase") == FLOOR).agg(F.sum(F.size("items"))).first()
    return int((price or [0])[0] or 0)


def _check_floor(price: int, budget: int) -> None:
    """Refuse a cut that would end within the floor: what is left of it is no floor.

    Raises:
        SettingsError: it costs more than the budget.
    """
    if price > budget:
        raise SettingsError(f"its floor takes {price:,} interactions, and the budget is {budget:,}.")


def _subset_of(bench: _Bench, name: str, variant: Variant, ratio: float, kept: DataFrame) -> Subset:
    """The part of a variant's ranking that fits a ratio.

    Raises:
        SettingsError: nothing can be learned from it.
    """
    run, split, seed = bench.run, bench.split, bench.settings.seed
    max_length = run.settings.fit.max_length
    if not variant.weighted:
        return _subset(run, split, "graph", name, seed, ratio, kept, variant.unit, max_length)
    _LOG.info("ablation %s %g, seed %d", name, ratio, seed)
    rows, folder = bench.copies(kept, ratio), _folder(split, "graph", name, seed, ratio)
    subset = write_subset(rows, split.n_items, folder, max_length)
    budget = budget_of(ratio, split.n_interactions)
    check_kept(subset, _who("graph", name, seed), ratio, budget, warn=run.stages.warn)
    return subset


def _add_prefixes(
    run: Evaluation, split: Split, plan: Plan, how: Mapping[str, Candidate], name: str, seed: int
) -> None:
    """Samples chosen one by one, by the graph and at random, for targets that learn by samples."""
    settings = run.settings
    methods: tuple[Literal["graph", "random"], ...] = ("graph", "random")
    for method in methods:
        at = partial(_prefix_settings, run, split, method, seed)
        table, _ = prune_once(run.spark, at, split, settings.shares[-1])
        kept = sample_rows(run.spark.read.format("delta").load(table))
        for ratio in settings.shares:
            subset = _subset(run, split, method, name, seed, ratio, kept, "prefix", settings.fit.max_length)
            for target in (t for t in settings.targets if t in NEURAL):
                plan.add(
                    subset,
                    target,
                    method=method,
                    variant=name,
                    ratio=ratio,
                    seed=seed,
                    regime=settings.regimes[0],
                    samples="last",
                    candidate=how.get(target),
                )


def _prefix_settings(
    run: Evaluation, split: Split, method: Literal["graph", "random"], seed: int, ratio: float
) -> PruneSettings:
    return run.settings.prune_settings(
        method,
        seed,
        ratio,
        split.sessions,
        str(split.folder / "pruned" / f"prefix-{method}-{seed}-{ratio:g}" / "pruned"),
        experts_folder(split),
        has_order=split.has_order,
        unit="prefix",
    )


def sample_rows(pruned: DataFrame) -> DataFrame:
    """Rows of a table of samples, each as a session of its own: session_id, items, place, prune_rank."""
    return pruned.select(
        F.concat_ws("#", F.col("session_id").cast("string"), "prune_length").alias("session_id"),
        "items",
        # Sessions in their order, and a session's samples by length.
        (F.col("place") * F.lit(_PLACES) + F.col("prune_length")).alias("place"),
        "prune_rank",
    )


def _subset(
    run: Evaluation,
    split: Split,
    method: str,
    name: str,
    seed: int,
    ratio: float,
    kept: DataFrame,
    unit: str,
    max_length: int,
) -> Subset:
    """The part of a ranking that fits a ratio: of the interactions, or of all prefixes.

    Raises:
        SettingsError: nothing can be learned from it.
    """
    _LOG.info("ablation %s %g, seed %d", name, ratio, seed)
    if unit == "session":
        cost, total, session = F.size("items"), split.n_interactions, None
    else:
        cost, total = F.lit(1), split.n_interactions - split.n_sessions
        session = F.floor(F.col("place") / F.lit(_PLACES))  # see `sample_rows`
    budget = budget_of(ratio, total)
    folder = _folder(split, method, name, seed, ratio)
    subset = write_subset(cut(kept, budget, cost), split.n_items, folder, max_length, session=session)
    who = _who(method, name, seed)
    check_kept(subset, who, ratio, budget, warn=run.stages.warn, samples=unit == "prefix")
    return subset


def _who(method: str, name: str, seed: int) -> str:
    return f"the ablation {name} of the method {method} (seed {seed})"


def _folder(split: Split, method: str, name: str, seed: int, ratio: float) -> Path:
    slug = "".join(c if c.isalnum() or c in "-.=" else "_" for c in name)
    return split.folder / "subsets" / f"ablation-{method}-{slug}-{seed}-{ratio:g}"
