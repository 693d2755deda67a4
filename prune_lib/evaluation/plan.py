"""What an evaluation runs: rows of the result, and the cell that each of them needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prune_lib.evaluation.cells import Cell
from prune_lib.evaluation.data import Split
from prune_lib.evaluation.settings import EvaluateSettings
from prune_lib.evaluation.subsets import Subset
from prune_lib.evaluation.targets.encoders import NEURAL
from prune_lib.evaluation.worker import Job

__all__ = ["Candidate", "Plan", "Row", "candidates"]


@dataclass(frozen=True)
class Candidate:
    """How long and how fast a neural target is trained: what validation chooses.

    Attributes:
        learning_rate: the network's.
        passes: passes over all training sessions; every subset takes as many steps (regime `steps`) or
            as many passes (`epochs`).
        steps: on all training sessions, where they were given instead of passes.
    """

    learning_rate: float
    passes: float
    steps: int | None = None


def candidates(settings: EvaluateSettings) -> list[Candidate]:
    """All combinations that validation tries; one where both were given."""
    fit = settings.fit
    rates = [fit.learning_rate] if fit.learning_rate else list(fit.candidates)
    if fit.steps:
        return [Candidate(rate, 0.0, fit.steps) for rate in rates]
    return [Candidate(rate, passes) for rate in rates for passes in fit.epochs_tried]


@dataclass(frozen=True)
class Row:
    """One line of the result, before its numbers.

    Attributes:
        method: graph, a baseline, or `all` for all the data.
        variant: the ablation; empty for the method as it is.
        ratio: share of the interactions.
        regime: steps, epochs, or tuning.
        samples: positions, prefixes or last.
        target: the recommender.
        seed: of pruning and training.
        cell: id of the cell.
        subset: what was trained on.
        steps: optimisation steps; 0 for targets that count.
        learning_rate: 0 for targets that count.
        prune_seconds: of the pruning run, at its largest ratio.
    """

    method: str
    variant: str
    ratio: float
    regime: str
    samples: str
    target: str
    seed: int
    cell: str
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
            regime: steps, epochs or tuning.
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
            steps = self._steps(subset, candidate, regime, samples, rows)
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
            subset,
            steps,
            candidate.learning_rate if candidate else 0.0,
            prune_seconds,
        )
        self.rows.append(row)
        return row

    def _steps(
        self, subset: Subset, candidate: Candidate, regime: str, samples: str, rows: int | None
    ) -> int:
        """Steps of a cell: those of all the data, or as many passes as they are there."""
        all_steps = candidate.steps or max(1, round(candidate.passes * self._batches[self._full.hash]))
        if regime != "epochs":
            return all_steps
        passes = all_steps / self._batches[self._full.hash]
        if samples == "positions":
            batches = self._batches.setdefault(
                subset.hash, subset.feed().batch_count(self._settings.fit.batch_size)
            )
        else:
            batches = subset.feed(samples).batch_count(self._settings.fit.batch_size, rows=rows)
        return max(1, round(passes * batches))


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


def chosen(scores: Mapping[Candidate, Sequence[float]]) -> Candidate:
    """The candidate with the best mean share of the best Recall@20 on each training set.

    Args:
        scores: Recall@20 of each candidate on the same training sets, in the same order.

    >>> a, b = Candidate(1e-3, 3), Candidate(3e-3, 3)
    >>> chosen({a: (0.50, 0.20), b: (0.49, 0.25)}) == b
    True
    """
    best = [max(column) for column in zip(*scores.values(), strict=True)]

    def share(candidate: Candidate) -> float:
        parts = [s / b for s, b in zip(scores[candidate], best, strict=True) if b > 0]
        return sum(parts) / len(parts) if parts else 0.0

    return max(scores, key=share)
