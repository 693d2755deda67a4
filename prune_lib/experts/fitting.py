"""Training of the experts of one fold, epoch by epoch; each by itself, whatever is trained beside it.

Batches and negatives hang on the fold and the epoch, dropout and the first weights on the expert too: three
experts that share a pass over the feed, three in three processes, and one that goes on from its checkpoint
come to the same weights, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_lib.experts import checkpoint
from prune_lib.experts.devices import mixed_precision
from prune_lib.experts.feed import Feed
from prune_lib.experts.learner import Batch, Learner
from prune_lib.experts.loss import NegativeSampler
from prune_lib.experts.mixture import Normaliser
from prune_lib.experts.models import Expert, make_expert
from prune_lib.experts.progress import EpochProgress, named
from prune_lib.experts.settings import EXPERTS, TrainSettings

__all__ = ["FittedExpert", "Fold", "first_positions", "fit_experts"]

log = logging.getLogger(__name__)

#: Seeds of a fold's epochs, and within them of the experts, are so far apart.
_EPOCHS, _KINDS = 1000, 10


@dataclass
class FittedExpert(Learner):
    """An expert in training that keeps its best weights so far and stops where it gets no better.

    Attributes:
        patience: epochs without a gain after which it stops.
        epoch: epochs passed.
        best: its best held-out log-likelihood, nats.
        stale: epochs since.
        done: no more epochs.
        kept: its best weights; empty where nothing is held out.
    """

    patience: int = 1
    epoch: int = 0
    best: float = float("-inf")
    stale: int = 0
    done: bool = False
    kept: dict[str, Tensor] = field(default_factory=dict)

    def keep_if_better(self, likelihood: float) -> None:
        """Take note of an epoch's held-out likelihood."""
        if likelihood > self.best:
            self.best, self.stale = likelihood, 0
            self.kept = {name: value.clone() for name, value in self.expert.state_dict().items()}
        else:
            self.stale += 1


@dataclass(frozen=True)
class Fold:
    """What the trainings of a fold share.

    Attributes:
        number: 0 or 1.
        parts: its parts of the feed, by name.
        popularity: sessions per item [n_items].
        settings: see `TrainSettings`.
        device: where they run.
        progress: tell of it while it runs.
        place: its line on a terminal.
    """

    number: int
    parts: Mapping[str, Feed]
    popularity: npt.NDArray[np.int64]
    settings: TrainSettings
    device: torch.device
    progress: bool = True
    place: int = 0

    def seed(self, epoch: int, kind: str | None = None) -> int:
        """The seed of an epoch, or of an expert in it."""
        number = 0 if kind is None else 1 + EXPERTS.index(kind)
        return ((self.settings.seed * 2 + self.number) * _EPOCHS + epoch) * _KINDS + number


def fit_experts(fold: Fold, kinds: Sequence[str], checkpoints: Path) -> None:
    """Train experts of a fold to their end, from their checkpoints where there are any.

    Args:
        fold: what they are trained on, and how.
        kinds: which of EXPERTS; one pass over the feed steps them all.
        checkpoints: folder of `checkpoint.expert_file`; at the end it holds each expert at its best.
    """
    settings, parts, n_items = fold.settings, fold.parts, len(fold.popularity)
    learners = [_learner(kind, fold) for kind in kinds]
    files = [checkpoint.expert_file(checkpoints, fold.number, kind) for kind in kinds]
    found = [checkpoint.restore(learner, file) for learner, file in zip(learners, files, strict=True)]
    if any(found):
        log.info(
            "fold %d goes on: %s",
            fold.number,
            ", ".join(f"{e.expert.kind} after {e.epoch} epochs" for e in learners),
        )
    held_out = parts["recent"] if parts["recent"].files() else parts["gate"]
    validation = list(first_positions(held_out, settings.validation_positions, n_items))
    sessions = parts["train"].sessions()
    if not sessions:
        log.warning("fold %d has no sessions to train on: its experts stay at popularity", fold.number)
        for learner in learners:
            learner.done = True
    for epoch in range(min(learner.epoch for learner in learners), settings.epochs):
        # After a kill between two checkpoints one expert may be an epoch ahead.
        active = [learner for learner in learners if not learner.done and learner.epoch == epoch]
        if not active:
            continue
        losses = _pass(active, fold, sessions, epoch)
        likelihoods = {}
        for learner, loss in zip(active, losses.values(), strict=True):
            learner.expert.eval()
            likelihood = _likelihood(learner.expert, validation, fold.device) if validation else -loss
            likelihoods[learner.expert.kind] = likelihood
            if validation:
                learner.keep_if_better(likelihood)
            learner.epoch += 1
            learner.done = learner.stale >= learner.patience or learner.epoch == settings.epochs
        log.info(
            "fold %d epoch %d of at most %d: loss %s; log-likelihood of sessions not trained on %s",
            fold.number,
            epoch + 1,
            settings.epochs,
            named(losses),
            named(likelihoods),
        )
        for learner in active:
            if settings.snapshots:
                kept = checkpoint.snapshot_file(checkpoints, fold.number, learner.expert.kind, epoch)
                checkpoint.save_snapshot(learner, kept)
            checkpoint.save(learner, checkpoint.expert_file(checkpoints, fold.number, learner.expert.kind))
    for learner, file in zip(learners, files, strict=True):
        if not file.is_file():
            checkpoint.save(learner, file)


def _learner(kind: str, fold: Fold) -> FittedExpert:
    settings = fold.settings
    with torch.random.fork_rng():
        torch.manual_seed(fold.seed(0, kind))
        expert = make_expert(
            kind, fold.popularity, dim=settings.dim, max_length=settings.max_length, dropout=settings.dropout
        )
    expert.mixed = mixed_precision(settings.precision, fold.device)
    return FittedExpert(
        expert.to(fold.device),
        settings.learning_rate,
        settings.embedding_learning_rate,
        patience=settings.patience,
    )


def _pass(active: list[FittedExpert], fold: Fold, sessions: int, epoch: int) -> dict[str, float]:
    """One pass over the feed steps all active experts; returns their mean losses by name."""
    settings, seed = fold.settings, fold.seed(epoch)
    sampler = NegativeSampler(fold.popularity, settings.negative_power, seed + _KINDS - 1)
    # Decays to a tenth: the last passes settle what the first ones found.
    rate = 1.0 - 0.9 * epoch / max(1, settings.epochs - 1)
    for learner in active:
        learner.expert.train()
        learner.expert.seed_dropout(fold.seed(epoch, learner.expert.kind))
    losses = torch.zeros(len(active), device=fold.device)
    count = 0
    names = ", ".join(learner.expert.kind for learner in active)
    name = f"fold {fold.number} epoch {epoch + 1} ({names})"
    with EpochProgress(name, sessions, fold.place, shown=fold.progress) as told:
        for items in fold.parts["train"].batches(settings.batch_size, seed=seed):
            batch = Batch.of(items, sampler, settings.negatives, len(fold.popularity), fold.device)
            losses += torch.stack([learner.step(batch, rate) for learner in active])
            count += 1
            told.update(len(items))
    means = (losses / count).tolist()
    return {learner.expert.kind: mean for learner, mean in zip(active, means, strict=True)}


def first_positions(feed: Feed, positions: int, n_items: int) -> Iterator[Tensor]:
    """Yield batches in a fixed shuffled order until they hold so many positions."""
    seen = 0
    for items in feed.batches(1024, seed=0):
        if seen >= positions:
            return
        seen += int((items[:, 1:] != n_items).sum())
        yield items


@torch.inference_mode()
def _likelihood(expert: Expert, batches: list[Tensor], device: torch.device) -> float:
    """Mean log-likelihood of the targets under one expert, the normaliser exact."""
    normaliser = Normaliser(expert)
    total, count = 0.0, 0
    for items in batches:
        items = items.to(device)
        valid = items[:, 1:] != expert.n_items
        h = expert.states(items[:, :-1])[valid]
        log_p = normaliser.log_probability(h, items[:, 1:][valid])
        total += float(log_p.double().sum())
        count += len(log_p)
    return total / max(1, count)
