"""Training of the experts of each fold, then of the gate over the frozen experts.

Cross-fitting: the experts and the gate of fold K are trained on sessions of fold K only and score
the sessions of the other fold, so that a session's difficulty is never memory of it.
"""

from __future__ import annotations

import copy
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_lib.errors import EnvironmentProblem, InputError
from prune_lib.experts.bundle import Bundle
from prune_lib.experts.fairness import fairness
from prune_lib.experts.feed import Feed, Reader, write_feed
from prune_lib.experts.learner import Batch, Learner
from prune_lib.experts.loss import NegativeSampler
from prune_lib.experts.mixture import Mixture, Normaliser, standardised_log_popularity
from prune_lib.experts.models import Expert, Gate, make_expert
from prune_lib.experts.progress import epoch_bar, named
from prune_lib.experts.settings import EXACT_LIMIT, EXPERTS, NEGATIVES, TrainSettings

if TYPE_CHECKING:
    from prune_lib.sessions.encoding import Encoded

__all__ = ["pick_device", "torch_state", "train_experts", "train_fold"]

log = logging.getLogger(__name__)

FOLDS = (0, 1)
#: Interactions from which two processes are worth their start (about 4 s each to import torch).
PARALLEL_FROM = 50_000
_LIKELIHOOD = "log_likelihood_"
#: Parts of the gate's cross-validation, and passes without a gain after which it ends.
_GATE_PARTS = 5
_GATE_PATIENCE = 5


def train_experts(
    encoded: Encoded,
    settings: TrainSettings,
    folder: str | Path,
    *,
    workdir: str | Path | None = None,
    reader: Reader = "auto",
    progress: bool = True,
    source: str = "",
) -> Bundle:
    """Train the experts and gates of both folds on an input and write them as a bundle.

    Cost: two Spark jobs for the feed, then `2 * settings.epochs` passes over half of it on the
        driver.

    Args:
        encoded: the encoded input; its item table becomes the bundle's vocabulary.
        settings: see `TrainSettings`.
        folder: where the bundle is written, whole or not at all; an older bundle there is replaced.
        workdir: folder for the feed, shared by driver and executors; it is removed at the end.
            Default: a temporary folder beside `folder`.
        reader: what reads the feed.
        progress: show progress bars on stderr.
        source: free text kept in the bundle: what it was trained on (table, version).

    Returns:
        The bundle, saved to `folder`.

    Raises:
        InputError: no session has two items or more.
        EnvironmentProblem: CUDA was asked for and there is none, or driver and executors do not share
            the folder.
    """
    target = Path(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    pick_device(settings.device)
    feed = Path(tempfile.mkdtemp(prefix=".feed-", dir=workdir or target.parent))
    try:
        started = time.perf_counter()
        if encoded.n_interactions == encoded.n_sessions:
            raise InputError(
                "Every session of the input has length 1, so there is no next item to learn from. "
                "Give sessions of two interactions or more, or check the session column."
            )
        written = write_feed(
            encoded.sessions,
            feed / "feed",
            n_items=encoded.n_items,
            max_length=settings.max_length,
            recent=settings.validation_positions,
        )
        _check_feed(feed / "feed", written, reader)
        log.info(
            "training feed written: %s sessions, %.1f s",
            f"{encoded.n_sessions:,}",
            time.perf_counter() - started,
        )
        trained = _train_folds(
            feed,
            encoded.item_sessions,
            settings,
            reader=reader,
            progress=progress,
            parallel=encoded.n_interactions >= PARALLEL_FROM,
        )
    finally:
        shutil.rmtree(feed, ignore_errors=True)
    bundle = Bundle.build(
        mixtures=[fold.mixture for fold in trained],
        settings=settings,
        vocabulary=encoded.items.select("item", "idx", "sessions").toPandas(),
        metrics={f"fold{k}": fold.metrics for k, fold in enumerate(trained)},
        described={
            "sessions": encoded.n_sessions,
            "items": encoded.n_items,
            "interactions": encoded.n_interactions,
            "source": source,
        },
    )
    return bundle.save(target)


def _check_feed(folder: Path, written: int, reader: Reader) -> None:
    """See that the driver reads what the executors wrote.

    Raises:
        EnvironmentProblem: they wrote somewhere else.
    """
    found = sum(
        Feed(folder, fold, part, reader).sessions() for fold in FOLDS for part in ("train", "gate", "holdout")
    )
    if found != written:
        raise EnvironmentProblem(
            f"Spark wrote {written:,} sessions for the training of the experts, and the driver finds "
            f"{found:,} of them in {folder}: the executors do not share this folder. Give a workspace that "
            "they share with the driver (--workspace), or trained experts (--experts)."
        )


def _train_folds(
    folder: Path,
    popularity: npt.NDArray[np.int64],
    settings: TrainSettings,
    *,
    reader: Reader,
    progress: bool,
    parallel: bool,
) -> list[TrainedFold]:
    """Train both folds, in processes side by side where that is worth it."""
    on_cpu = pick_device(settings.device).type == "cpu"
    if parallel and on_cpu and (os.cpu_count() or 1) > 1:
        from prune_lib.experts.fold_worker import train_folds_in_processes

        return train_folds_in_processes(
            folder / "feed", folder, popularity, settings, reader=reader, progress=progress
        )
    return [
        train_fold(folder / "feed", fold, popularity, settings, reader=reader, progress=progress)
        for fold in FOLDS
    ]


@dataclass
class TrainedFold:
    """What `train_fold` returns: the frozen mixture and its held-out metrics."""

    mixture: Mixture
    metrics: dict[str, Any]


def pick_device(device: str) -> torch.device:
    """Return the device that auto, cpu or cuda stands for.

    Raises:
        EnvironmentProblem: cuda was asked for and there is none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "The device cuda was asked for (--device, or training.device in the settings), but "
            "torch finds no GPU here. Use auto or cpu."
        )
    return torch.device(device)


@contextmanager
def torch_state(seed: int, threads: int) -> Iterator[None]:
    """Seed torch and set its threads, and put both back as they were."""
    before = torch.get_num_threads()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def train_fold(
    feed: str | Path,
    fold: int,
    popularity: npt.NDArray[np.int64],
    settings: TrainSettings,
    *,
    reader: Reader = "auto",
    progress: bool = True,
) -> TrainedFold:
    """Train the experts of one fold on its part `train`, and the gate on its part `gate`.

    Args:
        feed: the folder that `write_feed` wrote.
        fold: 0 or 1.
        popularity: sessions per item [n_items].
        settings: see `TrainSettings`.
        reader: what reads the feed.
        progress: show a progress bar on stderr.
    """
    started = time.perf_counter()
    device = pick_device(settings.device)
    parts = {part: Feed(Path(feed), fold, part, reader) for part in ("train", "gate", "holdout", "recent")}
    with torch_state(settings.seed * 2 + fold, settings.threads):
        learners = [_learner(kind, popularity, settings, device) for kind in EXPERTS]
        epochs = _fit_experts(learners, parts, popularity, settings, fold, progress, device)
        fitted = time.perf_counter()
        mixture = Mixture(
            experts=[learner.expert for learner in learners],
            gate=Gate().to(device),
            log_popularity=standardised_log_popularity(popularity).to(device),
        ).eval()
        metrics = _fit_gate(mixture, parts, settings, fold, popularity)
    metrics |= {"sessions": parts["train"].sessions(), "epochs": epochs}
    log.info(
        "fold %d trained: experts %.1f s, gate %.1f s; held-out log-likelihood %s",
        fold,
        fitted - started,
        time.perf_counter() - fitted,
        named({k.removeprefix(_LIKELIHOOD): v for k, v in metrics.items() if k.startswith(_LIKELIHOOD)}),
    )
    return TrainedFold(mixture.cpu(), metrics)


@dataclass
class _BestLearner(Learner):
    """A learner that keeps its best weights so far and stops where it gets no better."""

    patience: int = 1
    best: float = float("-inf")
    stale: int = 0
    kept: dict[str, Tensor] = field(default_factory=dict)

    @property
    def active(self) -> bool:
        return self.stale < self.patience

    def keep_if_better(self, likelihood: float) -> None:
        if likelihood > self.best:
            self.best, self.stale = likelihood, 0
            self.kept = {name: value.clone() for name, value in self.expert.state_dict().items()}
        else:
            self.stale += 1

    def restore(self) -> None:
        if self.kept:
            self.expert.load_state_dict(self.kept)
        self.expert.eval().requires_grad_(False)


def _learner(
    kind: str, popularity: npt.NDArray[np.int64], settings: TrainSettings, device: torch.device
) -> _BestLearner:
    expert = make_expert(
        kind, popularity, dim=settings.dim, max_length=settings.max_length, dropout=settings.dropout
    ).to(device)
    return _BestLearner(
        expert, settings.learning_rate, settings.embedding_learning_rate, patience=settings.patience
    )


def _fit_experts(
    learners: list[_BestLearner],
    parts: dict[str, Feed],
    popularity: npt.NDArray[np.int64],
    settings: TrainSettings,
    fold: int,
    progress: bool,
    device: torch.device,
) -> int:
    """One pass over the feed per epoch steps all three experts; returns the epochs passed."""
    n_items = len(popularity)
    sampler = NegativeSampler(popularity, settings.negative_power, settings.seed * 2 + fold)
    held_out = parts["recent"] if parts["recent"].files() else parts["gate"]
    validation = list(_first_positions(held_out, settings.validation_positions, n_items))
    sessions = parts["train"].sessions()
    passes = 0
    for epoch in range(settings.epochs):
        active = [learner for learner in learners if learner.active]
        if not active:
            break
        for learner in active:
            learner.expert.train()
        seed = (settings.seed * 2 + fold) * 1000 + epoch
        # Decays to a tenth: the last passes settle what the first ones found.
        rate = 1.0 - 0.9 * epoch / max(1, settings.epochs - 1)
        losses = torch.zeros(len(active))
        count = 0
        with epoch_bar(f"fold {fold} epoch {epoch + 1}", sessions, fold, shown=progress) as bar:
            for items in parts["train"].batches(settings.batch_size, seed=seed):
                batch = Batch.of(items, sampler, settings.negatives, n_items, device)
                losses += torch.stack([learner.step(batch, rate) for learner in active]).cpu()
                count += 1
                bar.update(len(items))
        if not count:
            log.warning("fold %d has no sessions to train on: its experts stay at popularity", fold)
            break
        passes += 1
        likelihoods = {}
        for learner in active:
            learner.expert.eval()
            likelihoods[learner.expert.kind] = (
                _likelihood(learner.expert, validation, device) if validation else float(-losses.mean())
            )
            if validation:
                learner.keep_if_better(likelihoods[learner.expert.kind])
        log.info(
            "fold %d epoch %d of at most %d: loss %s; log-likelihood of sessions not trained on %s",
            fold,
            epoch + 1,
            settings.epochs,
            named({e.expert.kind: float(x) / count for e, x in zip(active, losses, strict=True)}),
            named(likelihoods),
        )
    for learner in learners:
        learner.restore()
    return passes


def _first_positions(feed: Feed, positions: int, n_items: int) -> Iterator[Tensor]:
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


def _fit_gate(
    mixture: Mixture,
    parts: dict[str, Feed],
    settings: TrainSettings,
    fold: int,
    popularity: npt.NDArray[np.int64],
) -> dict[str, Any]:
    """Train the gate of a mixture whose experts are frozen; return held-out likelihoods and fairness."""
    n_items = mixture.n_items
    own, held = (
        list(_first_positions(parts[part], settings.gate_positions, n_items)) for part in ("gate", "holdout")
    )
    positions = sum(int((items[:, 1:] != n_items).sum()) for items in (*own, *held))
    exact = positions * n_items * len(EXPERTS) <= EXACT_LIMIT
    mixture.prepare(negatives=0 if exact else NEGATIVES)
    inputs, log_p = mixture.gate_inputs(own)
    held_inputs, held_log_p = mixture.gate_inputs(held)
    mixture.forget()  # they hold the weights once more, and where these were trained
    gate = mixture.gate
    _train_gate(gate, inputs, log_p, settings.gate_epochs)
    gate.eval().requires_grad_(False)
    if not len(held_inputs):
        held, held_inputs, held_log_p = own, inputs, log_p
    if not len(held_inputs):
        log.warning("fold %d has no held-out positions: its gate stays a uniform mixture", fold)
        return {"held_out_positions": 0}
    with torch.inference_mode():
        uniform = float(torch.logsumexp(held_log_p - np.log(len(EXPERTS)), dim=1).mean())
        weights = gate(held_inputs)
    gated = _gated(gate, held_inputs, held_log_p)
    metrics: dict[str, Any] = {
        "held_out_positions": len(held_inputs),
        "normaliser": "exact" if exact else "estimated",
    }
    for i, kind in enumerate(EXPERTS):
        metrics[f"{_LIKELIHOOD}{kind}"] = round(float(held_log_p[:, i].mean()), 4)
        metrics[f"gate_{kind}"] = round(float(weights[:, i].exp().mean()), 4)
    targets = torch.cat([items[:, 1:][items[:, 1:] != n_items] for items in held]).numpy()
    return metrics | {
        f"{_LIKELIHOOD}uniform": round(uniform, 4),
        f"{_LIKELIHOOD}gate": round(gated, 4),
        "fairness": fairness(
            held_log_p.double().cpu().numpy(), weights.double().cpu().numpy(), popularity[targets]
        ),
    }


def _train_gate(gate: Gate, inputs: Tensor, log_p: Tensor, epochs: int) -> None:
    """Train a gate for as many passes as are best for the predictions that it was not trained on.

    Those are found by cross-validation in `_GATE_PARTS` parts: a gate is cheap, its predictions may be few,
    and a tenth of them would be too few to decide on. Where no pass is better than none, the gate stays the
    uniform mixture that it starts as.

    Args:
        gate: untrained.
        inputs: see `gate_features`, [N, 6].
        log_p: of the targets under the experts [N, 3].
        epochs: passes at most.
    """
    if len(inputs) < _GATE_PARTS:
        return
    gate.standardise(inputs)
    part = torch.arange(len(inputs), device=inputs.device) * _GATE_PARTS // len(inputs)
    tried = [(_GateLearner(copy.deepcopy(gate)), part == k) for k in range(_GATE_PARTS)]
    best, wanted = _gated(gate, inputs, log_p), 0
    for epoch in range(1, epochs + 1):
        held = 0.0
        for learner, out in tried:
            learner.pass_over(inputs[~out], log_p[~out])
            held += _gated(learner.gate, inputs[out], log_p[out]) * int(out.sum())
        if held / len(inputs) > best + 1e-5:
            best, wanted = held / len(inputs), epoch
        elif epoch - wanted >= _GATE_PATIENCE:
            break
    learner = _GateLearner(gate)
    for _ in range(wanted):
        learner.pass_over(inputs, log_p)


class _GateLearner:
    """A gate and its optimiser."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self._optimiser = torch.optim.AdamW(gate.parameters(), lr=1e-2, weight_decay=0.01)

    def pass_over(self, inputs: Tensor, log_p: Tensor) -> None:
        for rows in torch.split(torch.randperm(len(inputs)).to(inputs.device), 512):
            self._optimiser.zero_grad(set_to_none=True)
            loss = -torch.logsumexp(self.gate(inputs[rows]) + log_p[rows], dim=1).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()


@torch.inference_mode()
def _gated(gate: Gate, inputs: Tensor, log_p: Tensor) -> float:
    """Mean log-likelihood of the mixture."""
    return float(torch.logsumexp(gate(inputs) + log_p, dim=1).mean())
