"""What frozen experts foresee after every prefix, and what a session would teach them; in one process.

For the forms of `forms.py`, which were tried and are no part of pruning: every distribution over all items is
computed on the driver, block by block. Sessions of a fold are read by the experts that did not see it.

Cost: clicks x items x experts, as scoring with the exact normaliser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt

from prune_lib.experts.settings import EXPERTS

if TYPE_CHECKING:
    from torch import Tensor

    from prune_lib.experts.mixture import Mixture, Normaliser
    from prune_lib.experts.models import Expert

__all__ = ["Clicks", "forecast", "influence", "neighbours"]

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

# Prefixes whose distributions are in memory at a time; sessions that are read at once.
_PREFIXES, _SESSIONS = 256, 128


@dataclass(frozen=True)
class Clicks:
    """Sessions in arrays, one after the other.

    Attributes:
        items: item indices of all clicks, shape (clicks,).
        lengths: clicks by session, shape (R,).
        fold: by session, 0 or 1, shape (R,).
    """

    items: npt.NDArray[np.int32]
    lengths: Ints
    fold: npt.NDArray[np.int32]

    @property
    def starts(self) -> Ints:
        """The place of each session's first click, shape (R,)."""
        starts: Ints = np.cumsum(self.lengths) - self.lengths
        return starts


@dataclass(frozen=True)
class _Block:
    """Predictions after some prefixes, B of them.

    Attributes:
        session: the session of each, shape (B,).
        place: the place of its last click among all clicks, shape (B,).
        target: the item of the next click, -1 after a whole session, shape (B,).
        gate: the experts' weights [B, E].
        shares: by expert, probabilities of all items [B, n_items].
        states: by expert [B, d].
    """

    session: Ints
    place: Ints
    target: Ints
    gate: Tensor
    shares: list[Tensor]
    states: list[Tensor]

    def mixed(self) -> npt.NDArray[np.float32]:
        """The mixture's probabilities, shape (B, n_items)."""
        return cast(
            "npt.NDArray[np.float32]",
            sum(self.gate[:, [e]] * share for e, share in enumerate(self.shares)).numpy(),  # type: ignore[union-attr]
        )


def _blocks(clicks: Clicks, mixture: Mixture, rows: Ints, max_length: int) -> Iterator[_Block]:
    """The predictions of a mixture after every prefix of some sessions, of long ones from their end."""
    import torch

    from prune_lib.experts.models import gate_features

    experts = cast("list[Expert]", list(mixture.experts))
    normalisers = mixture.normalisers()
    starts = clicks.starts
    for at in range(0, rows.size, _SESSIONS):
        some = rows[at : at + _SESSIONS]
        sizes = np.minimum(clicks.lengths[some], max_length)
        place = (starts[some] + clicks.lengths[some] - sizes)[:, None] + np.arange(sizes.max())
        inside = np.arange(sizes.max()) < sizes[:, None]
        items = np.full(inside.shape, mixture.n_items, dtype=np.int64)
        items[inside] = clicks.items[place[inside]]
        following = np.full(inside.shape, mixture.n_items, dtype=np.int64)
        following[:, :-1] = items[:, 1:]
        with torch.inference_mode():
            inputs, valid = torch.from_numpy(items), torch.from_numpy(inside)
            states = [expert.states(inputs)[valid] for expert in experts]
            log_z = [n.z(h).log().float() for n, h in zip(normalisers, states, strict=True)]
            gate = mixture.gate(gate_features(inputs, mixture.log_popularity, valid, log_z)).exp()
            session = np.repeat(some, sizes)
            target = np.where(following < mixture.n_items, following, -1)[inside]
            for start in range(0, session.size, _PREFIXES):
                part = slice(start, start + _PREFIXES)
                yield _Block(
                    session[part],
                    place[inside][part],
                    target[part],
                    gate[part],
                    [
                        _shares(n, h[part], z[part])
                        for n, h, z in zip(normalisers, states, log_z, strict=True)
                    ],
                    [h[part] for h in states],
                )


def _shares(normaliser: Normaliser, h: Tensor, log_z: Tensor) -> Tensor:
    import torch

    return torch.addmm(normaliser.bias, h, normaliser.table.T).sub_(log_z[:, None]).exp_()


def _by_length(clicks: Clicks, chosen: npt.NDArray[np.bool_]) -> Ints:
    """The chosen sessions, short ones first, so that those that are read together are of a length."""
    rows: Ints = np.flatnonzero(chosen)
    return rows[np.argsort(clicks.lengths[rows], kind="stable")]


def forecast(
    clicks: Clicks,
    mixtures: Mapping[int, Mixture],
    weight: Floats,
    first: npt.NDArray[np.int32],
    second: npt.NDArray[np.int32],
    *,
    max_distance: int,
    max_length: int,
) -> tuple[Floats, Floats]:
    """How often the mixture expects items, and transitions, after all prefixes.

    Args:
        clicks: the sessions.
        mixtures: by the fold of the sessions that each is to read.
        weight: of each session, such as its recency, shape (R,).
        first: first items of the transitions that are asked for, shape (V,).
        second: their second items, shape (V,).
        max_distance: clicks, at most, between the two.
        max_length: clicks of a session that the experts read at a time.

    Returns:
        By item: the sum over prefixes of weight and probability, shape (n_items,). By transition i -> j: the
        same over the prefixes that have i among their last clicks, once for each place, shape (V,).
    """
    n_items = next(iter(mixtures.values())).n_items
    by_item, by_pair = np.zeros(n_items), np.zeros(first.size)
    order = np.argsort(first, kind="stable")
    begins = np.searchsorted(first[order], np.arange(n_items + 1))
    starts = clicks.starts
    for fold, mixture in mixtures.items():
        for block in _blocks(clicks, mixture, _by_length(clicks, clicks.fold == fold), max_length):
            shares, weights = block.mixed(), weight[block.session]
            by_item += weights @ shares
            for distance in range(max_distance):
                there = np.flatnonzero(block.place - distance >= starts[block.session])
                item = clicks.items[block.place[there] - distance]
                count = begins[item + 1] - begins[item]
                row = np.repeat(there, count)
                inside = np.arange(row.size) - np.repeat(np.cumsum(count) - count, count)
                pair = order[np.repeat(begins[item], count) + inside]
                by_pair += np.bincount(pair, weights[row] * shares[row, second[pair]], first.size)
    return by_item, by_pair


def influence(
    clicks: Clicks, mixtures: Mapping[int, Mixture], newest: npt.NDArray[np.bool_], *, max_length: int
) -> Floats:
    """How far a session's gradient goes along that of the newest sessions: what it would teach for them.

    Gradients are those of the loss by the items' output vectors, of each expert, (p - e_target) h', mixed by
    the gate; their inner product with the newest sessions' mean is the first-order gain on these of a step on
    the session (TracIn: Pruthi et al., NeurIPS 2020, at one checkpoint and of the last layer).

    Args:
        clicks: the sessions.
        mixtures: by the fold of the sessions that each is to read.
        newest: which sessions are to gain, shape (R,).
        max_length: clicks of a session that the experts read at a time.

    Returns:
        The mean over a session's targets, NaN where it has none, shape (R,).
    """
    import torch

    total, count = np.zeros(clicks.lengths.size), np.zeros(clicks.lengths.size)
    for fold, mixture in mixtures.items():
        known = (clicks.fold == fold) & (clicks.lengths >= 2)
        aims = [torch.zeros_like(normaliser.table) for normaliser in mixture.normalisers()]
        seen = 0
        for block in _blocks(clicks, mixture, _by_length(clicks, known & newest), max_length):
            errors, has = _errors(block)
            for aim, error, h in zip(aims, errors, block.states, strict=True):
                aim += error.T @ h[has]
            seen += int(has.sum())
        for block in _blocks(clicks, mixture, _by_length(clicks, known), max_length):
            errors, has = _errors(block)
            along = torch.stack(
                [
                    (error * (h[has] @ aim.T)).sum(dim=1) / max(seen, 1)
                    for aim, error, h in zip(aims, errors, block.states, strict=True)
                ],
                dim=1,
            )
            session = block.session[has.numpy()]
            mixed = (block.gate[has] * along).sum(dim=1).double().numpy()
            total += np.bincount(session, mixed, total.size)
            count += np.bincount(session, minlength=count.size)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _errors(block: _Block) -> tuple[list[Tensor], Tensor]:
    """By expert, p - e_target of the prefixes that have a target [B', n_items]; and which have one [B]."""
    import torch

    has = torch.from_numpy(block.target >= 0)
    target = torch.from_numpy(block.target)[has]
    errors = []
    for share in block.shares:
        error = share[has]
        error[torch.arange(len(target)), target] -= 1.0
        errors.append(error)
    return errors, has


def neighbours(mixtures: Mapping[int, Mixture], k: int) -> Ints:
    """The k items nearest to each by what the graph network learned of them, shape (n_items, k).

    The nearest by the cosine of the output vectors, a mean over the folds; no item is its own neighbour.
    """
    import torch

    tables = []
    for mixture in mixtures.values():
        gnn = cast("Expert", mixture.experts[EXPERTS.index("gnn")])
        tables.append(gnn.output_table())
    table = torch.cat(tables, dim=1) / len(tables) ** 0.5
    found = []
    for start in range(0, len(table), _PREFIXES):
        part = table[start : start + _PREFIXES]
        near = part @ table.T
        near[torch.arange(len(part)), torch.arange(start, start + len(part))] = -2.0
        found.append(near.topk(min(k, len(table) - 1), dim=1).indices)
    result: Ints = torch.cat(found).numpy()
    return result
