"""Training of a neural target on a subset's feed, for a fixed number of steps, and its scores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prune_lib.evaluation.stopwatch import Stopwatch
from prune_lib.evaluation.targets.encoders import make_encoder
from prune_lib.experts.devices import pick_device, torch_state
from prune_lib.experts.feed import Feed
from prune_lib.experts.learner import Batch, Learner
from prune_lib.experts.loss import NegativeSampler
from prune_lib.experts.models import Expert, make_expert

__all__ = ["Fitted", "NeuralTarget", "Recipe", "fit_neural"]

#: Share of the steps in which the learning rate rises from 0; then it falls linearly to 0.
WARM_UP = 0.02


@dataclass(frozen=True)
class Recipe:
    """How a neural target is trained; nothing in it depends on the subset.

    Attributes:
        target: one of encoders.NEURAL.
        dim: width.
        layers: blocks, where the architecture stacks them.
        dropout: on embedded inputs, on states, and inside where the architecture has it.
        negatives: negatives a batch.
        negative_power: they are drawn from popularity to this power.
        batch_size: padded positions a batch.
        max_length: longer sessions are cut to so many items, their last; one less are inputs.
        learning_rate: the network's.
        embedding_ratio: the item embeddings' learning rate as a multiple of it.
        device: auto, cpu or cuda.
    """

    target: str
    dim: int
    layers: int
    dropout: float
    negatives: int
    negative_power: float
    batch_size: int
    max_length: int
    learning_rate: float
    embedding_ratio: float
    device: str = "cpu"


@dataclass
class Fitted:
    """A trained target and what its training took.

    Attributes:
        model: ready to score.
        steps: optimisation steps taken.
        passes: passes over the subset.
        learned: targets learned from, repeated passes counted.
        seconds: of training, without the start of the process; see Stopwatch.
        loss: mean loss of the last tenth of the steps, nats.
    """

    model: NeuralTarget
    steps: int
    passes: float
    learned: int
    seconds: float
    loss: float


class NeuralTarget:
    """A trained target as `ranking.Target`."""

    def __init__(self, expert: Expert, seen: npt.NDArray[np.bool_], max_length: int) -> None:
        """Take the trained model and which items [n_items] its training data hold."""
        self.n_items = expert.n_items
        self.max_length = max_length
        self._expert = expert.eval()
        self._table = expert.output_table().T.contiguous()
        # An item that training never saw has a random embedding. In a prefix it stands as unknown, as it
        # would for who trains on the pruned table alone, and it is never recommended.
        self._known = np.append(seen, False)
        self._bias = expert.bias[: self.n_items].masked_fill(
            ~torch.from_numpy(seen).to(expert.bias.device), float("-inf")
        )

    @torch.inference_mode()
    def scores(self, sessions: list[npt.NDArray[np.int32]], first: int = 1) -> npt.NDArray[np.float32]:
        """Scores of all items after every proper prefix of `first` items or more; see `ranking.Target`."""
        if first > 1:
            # A state sees `max_length` items at most: the first prefix needs none from before `begin`.
            begin = max(0, first - self.max_length)
            skipped = first - 1 - begin
            states = torch.cat([self.states([s[begin:]])[skipped:] for s in sessions])
        else:
            states = self.states(sessions)
        out: npt.NDArray[np.float32] = torch.addmm(self._bias, states, self._table).cpu().numpy()
        return out

    @torch.inference_mode()
    def states(self, sessions: list[npt.NDArray[np.int32]]) -> Tensor:
        """States after every proper prefix, [sum(len - 1), d]; sessions of like length share a pass."""
        starts = np.concatenate([[0], np.cumsum([len(s) - 1 for s in sessions])])
        rows: dict[int, list[tuple[int, int, npt.NDArray[np.int32]]]] = {}
        for at, session in zip(starts[:-1], sessions, strict=True):
            head = session[: min(len(session) - 1, self.max_length)]
            rows.setdefault(_padded(len(head), self.max_length), []).append((int(at), 0, head))
            for end in range(self.max_length + 1, len(session)):  # later prefixes: a window each
                window = session[end - self.max_length : end]
                rows.setdefault(self.max_length, []).append(
                    (int(at) + end - self.max_length, self.max_length - 1, window)
                )
        device = self._table.device
        out = torch.empty(int(starts[-1]), self._table.shape[0], device=device)
        for length, group in rows.items():
            items = np.full((len(group), length), self.n_items, np.int64)
            for row, (_, _, session) in enumerate(group):
                items[row, : len(session)] = session
            items[~self._known[items]] = self.n_items
            states = self._expert.states(torch.from_numpy(items).to(device))
            places, sources = [], []
            for row, (at, first, session) in enumerate(group):
                places.append(np.arange(at + first, at + len(session)))
                sources.append(np.arange(row * length + first, row * length + len(session)))
            out[torch.from_numpy(np.concatenate(places)).to(device)] = states.reshape(-1, out.shape[1])[
                torch.from_numpy(np.concatenate(sources)).to(device)
            ]
        return out


def _padded(length: int, longest: int) -> int:
    """The next of 1, 2, 4, 8, …, at most `longest`.

    >>> _padded(5, 50), _padded(49, 50)
    (8, 50)
    """
    return min(1 << max(0, length - 1).bit_length(), longest)


def fit_neural(
    feed: Feed,
    popularity: npt.NDArray[np.int64],
    recipe: Recipe,
    *,
    steps: int | None = None,
    passes: float | None = None,
    seed: int,
    rows: int | None = None,
    last_only: bool = False,
    threads: int = 1,
) -> Fitted:
    """Train a target for so many steps, or for so many passes over the subset.

    Args:
        feed: the subset's sessions.
        popularity: sessions of the subset that hold each item, over the whole vocabulary [n_items].
        recipe: see `Recipe`.
        steps: optimisation steps; None where `passes` says how long.
        passes: passes over the feed.
        seed: of the weights, the order and the negatives.
        rows: sessions in a batch, where not by padded positions.
        last_only: learn the last position of each row of the feed only.
        threads: torch's; with 1 the same weights come out everywhere.

    Raises:
        ValueError: neither or both of steps and passes, or nothing in the feed.
    """
    if (steps is None) == (passes is None):
        raise ValueError("give either steps or passes")
    device = pick_device(recipe.device)
    inputs = recipe.max_length - 1  # the last item of a session is a target only
    n_items = len(popularity)
    one_pass = feed.batch_count(recipe.batch_size, rows=rows)
    if not one_pass:
        raise ValueError("the feed has no session of two items or more")
    total = steps if steps is not None else max(1, round(passes * one_pass))  # type: ignore[operator]
    watch = Stopwatch()
    with torch_state(seed, threads):
        encoder = make_encoder(
            recipe.target,
            dim=recipe.dim,
            max_length=inputs,
            dropout=recipe.dropout,
            layers=recipe.layers,
        )
        expert = make_expert(
            recipe.target,
            popularity,
            dim=recipe.dim,
            max_length=inputs,
            dropout=recipe.dropout,
            encoder=encoder,
        ).to(device)
        learner = Learner(expert, recipe.learning_rate, recipe.learning_rate * recipe.embedding_ratio)
        # What is never recommended is no rival to learn against.
        sampler = NegativeSampler(popularity, recipe.negative_power, seed, unseen=False)
        expert.train()
        learned, tail = 0, []
        for step, items in enumerate(_forever(feed, recipe.batch_size, rows, seed)):
            if step == total:
                break
            batch = Batch.of(items, sampler, recipe.negatives, n_items, device, last_only=last_only)
            loss = learner.step(batch, _rate(step, total))
            learned += len(batch.targets_at)
            if step >= int(0.9 * total):
                tail.append(loss)
        expert.eval().requires_grad_(False)
    return Fitted(
        NeuralTarget(expert, popularity > 0, inputs),
        total,
        total / one_pass,
        learned,
        watch.seconds(device.type),
        float(torch.stack(tail).mean()),
    )


def _rate(step: int, total: int) -> float:
    """The learning rate's course: up within WARM_UP of the steps, then linearly down to 0."""
    rise = max(1.0, WARM_UP * total)
    return min((step + 1) / rise, 1.0) * (1.0 - step / total)


def _forever(feed: Feed, batch_size: int, rows: int | None, seed: int) -> Iterator[Tensor]:
    epoch = 0
    while True:
        yield from feed.batches(batch_size, seed=seed * 100_003 + epoch, rows=rows)
        epoch += 1
