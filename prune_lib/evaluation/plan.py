"""What an evaluation runs: rows of the result, and the cell that each of them needs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from prune_lib.evaluation.cells import FORMAT, Cell
from prune_lib.evaluation.files import Split, Subset, code_hash
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.targets.settings import NEURAL
from prune_lib.evaluation.worker import Job
from prune_lib.settings import settings_hash

__all__ = ["BY_RATIO", "TUNING_RATIO", "Candidate", "Plan", "Row", "candidates", "chosen", "for_a_tenth"]

#: The random subset on which, beside all the data, learning rate and length are chosen.
TUNING_RATIO = 0.1
#: Methods whose order depends on the ratio: what they keep of less is no cut of what they keep of more.
BY_RATIO = frozenset({"dual"})


@dataclass(frozen=True)
class Candidate:
    """How fast and how long a neural target is trained; validation chooses among candidates.

    Lengths are in passes over all the training sessions, also where it is a subset that is trained on:
    4 passes of a tenth of the data are as many steps as 4 passes of all the data, 40 passes of its own.

    Attributes:
        learning_rate: the network's.
        passes: of the regimes `steps` and `epochs`: good for all the data and for a random tenth together.
        longest: best for all the data alone: the regime `tuned` at ratio 1.
        shortest: best for a random tenth alone: the regime `tuned` at that ratio; between the two, and
            beyond, in proportion to the logarithms.
        steps: of every regime, where they were given instead of passes.
    """

    learning_rate: float
    passes: float
    longest: float = 0.0
    shortest: float = 0.0
    steps: int | None = None

    def passes_at(self, ratio: float) -> float:
        """Passes of the regime `tuned`.

        >>> round(Candidate(1e-3, 4, longest=8, shortest=2).passes_at(0.1), 6)
        2.0
        """
        if not self.longest or not self.shortest:
            return self.passes
        slope = math.log(self.longest / self.shortest) / math.log(1 / TUNING_RATIO)
        return self.longest * math.exp(slope * math.log(ratio))


def candidates(settings: EvaluateSettings) -> list[Candidate]:
    """All combinations that validation tries; one where both were given."""
    fit = settings.fit
    rates = [fit.learning_rate] if fit.learning_rate else list(fit.candidates)
    if fit.steps:
        return [Candidate(rate, 0.0, steps=fit.steps) for rate in rates]
    return [Candidate(rate, passes) for rate in rates for passes in fit.epochs_tried]


def for_a_tenth(tried: Sequence[Candidate]) -> list[Candidate]:
    """What is tried on the random tenth: it may want fewer steps than any that suits all the data."""
    shortest = min(candidate.passes for candidate in tried)
    if not shortest:
        return list(tried)
    rates = dict.fromkeys(candidate.learning_rate for candidate in tried)
    fewer = [Candidate(rate, shortest / part) for rate in rates for part in (4, 2)]
    return [*fewer, *tried]


@dataclass(frozen=True)
class Row:
    """One line of the result, before its numbers.

    Attributes:
        method: graph, a baseline, or `all` for all the data.
        variant: the ablation; empty for the method as it is.
        ratio: share of the interactions.
        regime: steps, epochs, tuned, or tuning.
        samples: positions, prefixes or last.
        target: the recommender.
        seed: of pruning and training.
        cell: id of the cell.
        recipe: hash of what decides the result beside all the above: settings and code. Rows of two
            recipes are never averaged.
        training: hash of how the target is trained, which all that is compared has in common; empty while
            that is being chosen.
        subset: what was trained on.
        steps: optimisation steps; 0 for targets that count.
        learning_rate: 0 for targets that count.
        prune_seconds: of the pruning run, at its largest ratio; where each ratio has its own, of that.
    """

    method: str
    variant: str
    ratio: float
    regime: str
    samples: str
    target: str
    seed: int
    cell: str
    recipe: str
    training: str
    subset: Subset
    steps: int
    learning_rate: float
    prune_seconds: float


class Plan:
    """Collects rows and the jobs that they need."""

    def __init__(self, settings: EvaluateSettings, split: Split, full: Subset) -> None:
        """Start a plan on a split, whose training sessions are `full`."""
        self.rows: list[Row] = []
        self.jobs: dict[str, Job] = {}
        self._settings = settings
        self._split = split
        self._full = full
        self._code = code_hash()
        batch_size = settings.fit.batch_size
        self._batches = {full.hash: full.feed().batch_count(batch_size)}
        # A batch of single-target samples learns as many targets as one of whole sessions does.
        self._rows_per_batch = max(1, round(full.targets / max(1, self._batches[full.hash])))

    def add(
        self,
        subset: Subset,
        target: str,
        *,
        method: str,
        ratio: float,
        seed: int,
        regime: str,
        samples: str = "positions",
        variant: str = "",
        candidate: Candidate | None = None,
        prune_seconds: float = 0.0,
    ) -> Row:
        """Add a row; its cell becomes a job unless another row has asked for it.

        Args:
            subset: what to train on.
            target: the recommender.
            method: who chose the subset.
            ratio: share of the interactions.
            seed: of the training.
            regime: steps, epochs, tuned or tuning.
            samples: positions, prefixes or last.
            variant: the ablation.
            candidate: learning rate and length of a neural target.
            prune_seconds: what the choice took.
        """
        settings = self._settings
        rows, steps, recipe = None, 0, dict[str, Any]()
        if target in NEURAL:
            assert candidate is not None
            recipe = _recipe(settings, candidate)
            rows = self._rows_per_batch if samples != "positions" else None
            steps = self._steps(subset, candidate, regime, samples, rows, ratio)
        elif target != "markov":
            recipe = {"neighbours": settings.fit.neighbours}
        cell = Cell(
            data=f"{self._split.data_hash}/{self._split.cases_hash}",
            subset=subset.hash,
            target=target,
            samples=samples if target in NEURAL else "positions",
            steps=steps,
            seed=seed if target in NEURAL else 0,
            recipe=recipe,
        )
        label = " ".join(
            part
            for part in (
                f"{method} {ratio:g}" if method != "all" else "all",
                variant,
                target,
                "" if samples == "positions" else samples,
                f"{steps:,} steps" if steps else "",
                f"seed {seed}",
            )
            if part
        )
        self.jobs.setdefault(
            cell.id,
            Job(
                cell, subset.folder, self._split.folder, rows, label, _weight(cell, subset, self._split, rows)
            ),
        )
        row = Row(
            method,
            variant,
            ratio,
            regime,
            samples,
            target,
            seed,
            cell.id,
            self._recipe_hash(method, candidate, recipe),
            "" if regime == "tuning" else _digest(*_trained(candidate, recipe)),
            subset,
            steps,
            candidate.learning_rate if candidate else 0.0,
            prune_seconds,
        )
        self.rows.append(row)
        return row

    def _recipe_hash(self, method: str, candidate: Candidate | None, training: Mapping[str, Any]) -> str:
        parts = _trained(candidate, training)
        if method != "all":
            parts.append(self._code)
        if method not in ("all", "random"):
            # All that a pruning run is given; its method, ratio and seed are the row's own.
            parts.append(settings_hash(self._settings.prune_settings("graph", 0, 0.5, "in", "out", ".")))
        if method in BY_RATIO:
            # Rows of former versions were cuts of the largest ratio's run.
            parts.append("a run a ratio")
        return _digest(*parts)

    def _steps(
        self,
        subset: Subset,
        candidate: Candidate,
        regime: str,
        samples: str,
        rows: int | None,
        ratio: float,
    ) -> int:
        """Steps of a cell: those of all the data, or as many passes as there, or what suits the ratio."""
        one_pass = self._batches[self._full.hash]
        passes = candidate.passes_at(ratio) if regime == "tuned" else candidate.passes
        steps = candidate.steps or max(1, round(passes * one_pass))
        if regime != "epochs":
            return steps
        if samples == "positions":
            batches = self._batches.setdefault(
                subset.hash, subset.feed().batch_count(self._settings.fit.batch_size)
            )
        else:
            batches = subset.feed(samples).batch_count(self._settings.fit.batch_size, rows=rows)
        return max(1, round(steps / one_pass * batches))


def _trained(candidate: Candidate | None, training: Mapping[str, Any]) -> list[Any]:
    """How a target is trained, whatever on."""
    return [FORMAT, training, asdict(candidate) if candidate else None]


def _digest(*parts: Any) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _recipe(settings: EvaluateSettings, candidate: Candidate) -> dict[str, Any]:
    fit = settings.fit
    return {
        "dim": fit.dim,
        "layers": fit.layers,
        "dropout": fit.dropout,
        "negatives": fit.negatives,
        "negative_power": fit.negative_power,
        "batch_size": fit.batch_size,
        "max_length": fit.max_length,
        "learning_rate": candidate.learning_rate,
        "embedding_ratio": fit.embedding_ratio,
    }


# Seconds of a step beside GRU4Rec's, as measured on one core: only the forecast of the time left uses it.
_PACE: Mapping[str, float] = {
    "gru4rec": 1.0,
    "stamp": 1.1,
    "narm": 1.5,
    "hstu": 1.4,
    "srgnn": 1.5,
    "sasrec": 1.8,
}


def _weight(cell: Cell, subset: Subset, split: Split, rows: int | None) -> float:
    ranking = split.n_cases * split.n_items * 1e-9
    if cell.target not in NEURAL:
        return 2 * ranking + subset.interactions * 1e-5
    return ranking + cell.steps * 0.02 * _PACE[cell.target] * (1 if rows is None else 3)


def chosen(on_all: Mapping[Candidate, float], on_tenth: Mapping[Candidate, float]) -> Candidate:
    """The choice among candidates by their Recall@20 on validation.

    Args:
        on_all: of each candidate, trained on all the data.
        on_tenth: of each of them and of some shorter ones, trained on a random tenth.

    Returns:
        The learning rate and the length with the best mean share of the best Recall on either, and beside
        them the lengths that are best for each alone at that learning rate.

    >>> a, b = Candidate(1e-3, 4), Candidate(1e-3, 8)
    >>> chosen({a: 0.48, b: 0.50}, {a: 0.30, b: 0.20})
    Candidate(learning_rate=0.001, passes=4, longest=8, shortest=4, steps=None)
    """
    best_all, best_tenth = max(on_all.values()), max(on_tenth.values())

    def share(candidate: Candidate) -> float:
        return on_all[candidate] / (best_all or 1.0) + on_tenth[candidate] / (best_tenth or 1.0)

    both = max(on_all, key=share)
    same_rate = {c: r for c, r in on_tenth.items() if c.learning_rate == both.learning_rate}
    longest = max((c for c in on_all if c in same_rate), key=on_all.__getitem__)
    shortest = max(same_rate, key=same_rate.__getitem__)
    return replace(both, longest=longest.passes, shortest=shortest.passes)
