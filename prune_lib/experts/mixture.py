"""The frozen mixture of one fold: log-probabilities of next items, and the normaliser log Z."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from prune_lib.experts.dynamics import dynamics_of, snapshots_from_bytes
from prune_lib.experts.models import Expert, Gate, gate_features
from prune_lib.experts.settings import EXPERTS
from prune_lib.experts.spread import spread_of

__all__ = ["Mixture", "Normaliser", "SharedNegatives", "standardised_log_popularity"]

#: Scores in memory at a time (positions x items of a block): 1024 x 4096 floats are 16 MB, near the
#: cache.
BLOCK_POSITIONS = 1024
BLOCK_ITEMS = 4096
#: Positions are filled up to a multiple of this: a matrix product of very few rows goes another way and
#: differs in its last bits, and a prediction's loss is not to depend on those beside it.
POSITION_STEP = 128


def standardised_log_popularity(popularity: npt.NDArray[np.int64]) -> Tensor:
    """Return standardised log(1 + sessions) of the items, and 0 for unknown, [n_items + 1]."""
    value = np.log1p(popularity.astype(np.float64))
    value = (value - value.mean()) / max(float(value.std()), 1e-6)
    return torch.from_numpy(np.append(value, 0.0)).float()


@dataclass(frozen=True)
class SharedNegatives:
    """The fixed items that an estimated normaliser sums over.

    Attributes:
        items: their indices [K].
        weight: how many items each stands for [K]; 1 for the popular half, which is taken whole.
    """

    items: Tensor
    weight: Tensor

    @classmethod
    def of(cls, n_items: int, k: int) -> SharedNegatives:
        """Take the k // 2 most popular items, and one of each of as many strata of the others.

        Items are indexed by falling popularity, so that a stratum holds items of like popularity.
        The choice depends on the two numbers only.
        """
        head = k // 2
        strata = np.array_split(np.arange(head, n_items), k - head)
        random = np.random.default_rng(n_items)
        tail = [int(random.choice(stratum)) for stratum in strata]
        weight = np.concatenate([np.ones(head), [len(stratum) for stratum in strata]])
        items = np.concatenate([np.arange(head), tail]).astype(np.int64)
        return cls(torch.from_numpy(items), torch.from_numpy(weight).float())


class Normaliser:
    """log Z_t = log sum_i exp(score_t(i)) of one expert: over all items, or estimated.

    The estimate sums the shared negatives, each times the items it stands for, and the target as it
    is (an unbiased estimate of Z over the choice of the negatives). Spearman with the exact scores on
    diginetica (43,097 items), raw and adjusted for popularity: 0.981 and 0.964 with 2,048 negatives,
    0.989 and 0.978 with 4,096, 0.994 and 0.986 with 8,192.

    Attributes:
        table: output embeddings [n_items, d].
        bias: [n_items].
        items: those that are summed over [K]; None for all.
        weight: how many items each stands for [K]; None for all.
    """

    def __init__(self, expert: Expert, negatives: SharedNegatives | None = None) -> None:
        """Prepare the output table of a frozen expert; no negatives: exact."""
        self.table = expert.output_table()
        self.bias = expert.bias[: expert.n_items]
        self._summed, self._summed_bias, self._weight_of = self.table, self.bias, None
        self.items: Tensor | None = None
        self.weight: Tensor | None = None
        if negatives is not None:
            items, weight = (
                negatives.items.to(self.bias.device),
                negatives.weight.to(self.bias.device),
            )
            self.items, self.weight = items, weight
            self._summed, self._summed_bias = self.table[items], self.bias[items] + weight.log()
            self._weight_of = torch.zeros_like(self.bias).index_copy_(0, items, weight)

    def score(self, h: Tensor, targets: Tensor) -> Tensor:
        """Return the scores [N] of targets, before they are normalised."""
        return (h * self.table[targets]).sum(dim=1) + self.bias[targets]

    def z(self, h: Tensor) -> Tensor:
        """Return Z [N], float64, of states h [N, d]; nothing of the targets is in it."""
        return _sum(h, self._summed, self._summed_bias)

    def log_probability(self, h: Tensor, targets: Tensor, z: Tensor | None = None) -> Tensor:
        """Return log p(target) [N] for states h [N, d], item indices [N] and what `z` returns."""
        score = self.score(h, targets)
        total = self.z(h) if z is None else z
        if self._weight_of is not None:
            total = total + score.exp() * (1.0 - self._weight_of[targets])
        return score - total.log().float()


def _sum(h: Tensor, table: Tensor, bias: Tensor) -> Tensor:
    # A score is a cosine times the scale (at most 50), and a bias that starts at the log of a share: below 0,
    # and nothing bounds it, but to leave float32 (e^88) it would have to learn to be 38 above that.
    n, h = len(h), h[_filled(len(h), h.device)]
    total = torch.zeros(len(h), dtype=torch.float64, device=h.device)
    for i in range(0, len(h), BLOCK_POSITIONS):
        for j in range(0, len(table), BLOCK_ITEMS):
            block = slice(j, j + BLOCK_ITEMS)
            scores = torch.addmm(bias[block], h[i : i + BLOCK_POSITIONS], table[block].T)
            total[i : i + BLOCK_POSITIONS] += scores.exp_().sum(dim=1)
    return total[:n]


def _filled(n: int, device: torch.device) -> Tensor:
    """Return the rows 0 ... n - 1 and the last again, up to a multiple of POSITION_STEP."""
    return torch.arange(n + -n % POSITION_STEP, device=device).clamp(max=n - 1)


class Mixture(nn.Module):
    """The three frozen experts and the gate of one fold."""

    log_popularity: Tensor

    def __init__(self, experts: list[Expert], gate: Gate, log_popularity: Tensor) -> None:
        """Take experts in the order of EXPERTS, and log popularity [n_items + 1]."""
        super().__init__()
        self.experts = nn.ModuleList(experts)
        self.gate = gate
        self.register_buffer("log_popularity", log_popularity)
        self._normalisers: list[Normaliser] | None = None
        self._epochs: list[tuple[list[Expert], list[Normaliser]]] = []

    @property
    def n_items(self) -> int:
        """Number of items of the vocabulary; also the index of unknown items and of padding."""
        return len(self.log_popularity) - 1

    def normalisers(self) -> list[Normaliser]:
        """Return the experts' normalisers, made once."""
        if self._normalisers is None:
            self.prepare()
        assert self._normalisers is not None  # noqa: S101
        return self._normalisers

    def prepare(self, *, negatives: int = 0) -> None:
        """Choose the normaliser: exact (0), or estimated from so many shared negatives."""
        negatives = 0 if negatives >= self.n_items else negatives
        shared = SharedNegatives.of(self.n_items, negatives) if negatives else None
        self._normalisers = [Normaliser(expert, shared) for expert in self._experts()]

    def take_snapshots(self, content: bytes, *, negatives: int = 0) -> None:
        """Take the experts of every epoch, for `with_dynamics`.

        Args:
            content: what `snapshots_to_bytes` returned.
            negatives: as for `prepare`.
        """
        device = self.log_popularity.device
        negatives = 0 if negatives >= self.n_items else negatives
        shared = SharedNegatives.of(self.n_items, negatives) if negatives else None
        self._epochs = []
        for experts in snapshots_from_bytes(content, self._experts()):
            there = [expert.to(device) for expert in experts]
            self._epochs.append((there, [Normaliser(expert, shared) for expert in there]))

    def forget(self) -> None:
        """Drop the normalisers; they are made anew when they are needed."""
        self._normalisers = None

    def _experts(self) -> list[Expert]:
        return [cast(Expert, expert) for expert in self.experts]

    @torch.inference_mode()
    def forward(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Score the known targets of sessions.

        Args:
            items: item indices [B, L]; `n_items` where padded or unknown.

        Returns:
            valid: bool [B, L - 1]: the target of this position is known; N of them.
            log_p: log p_e of each target under each expert [N, 3].
            log_g: log of the gate [N, 3].
        """
        valid, features, log_p, _, _ = self._scored(items)
        return valid, log_p, self._gated(features)

    @torch.inference_mode()
    def with_spread(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `forward` does, and `spread.spread_of` the targets [N, 3]."""
        valid, features, log_p, states, targets = self._scored(items)
        log_g = self._gated(features)
        n, rows = len(targets), _filled(len(targets), targets.device)
        states = [h[rows] for h in states]
        spread = spread_of(self.normalisers(), states, log_p[rows], log_g[rows], targets[rows])
        return valid, log_p, log_g, spread[:n]

    @torch.inference_mode()
    def with_dynamics(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return what `forward` does, and `dynamics.dynamics_of` the targets [N, 2]."""
        valid, features, log_p, _, targets = self._scored(items)
        by_epoch = []
        for experts, normalisers in self._epochs:
            own = [expert.states(items[:, :-1])[valid] for expert in experts]
            of_experts = [n.log_probability(h, targets) for n, h in zip(normalisers, own, strict=True)]
            by_epoch.append(torch.stack(of_experts, dim=1).logsumexp(dim=1))
        if not by_epoch:  # a fold without a session to train on: nothing varies
            by_epoch = [log_p.logsumexp(dim=1)]
        return valid, log_p, self._gated(features), dynamics_of(torch.stack(by_epoch, dim=1))

    def _gated(self, features: Tensor) -> Tensor:
        log_g: Tensor = self.gate(features[_filled(len(features), features.device)])
        return log_g[: len(features)]

    @torch.inference_mode()
    def gate_inputs(self, batches: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gate's features [N, 6] and the experts' log p [N, 3] of targets."""
        device = self.log_popularity.device
        found = [self._scored(items.to(device))[1:3] for items in batches]
        features = [f for f, _ in found] or [torch.empty(0, Gate.INPUTS, device=device)]
        log_p = [p for _, p in found] or [torch.empty(0, len(self.experts), device=device)]
        return torch.cat(features), torch.cat(log_p)

    def _scored(self, items: Tensor) -> tuple[Tensor, Tensor, Tensor, list[Tensor], Tensor]:
        """Which positions are valid, and of these the gate's features, log p, states and targets."""
        inputs, targets = items[:, :-1], items[:, 1:]
        valid = targets != self.n_items
        states = [expert.states(inputs) for expert in self._experts()]
        wanted = targets[valid]
        own = [h[valid] for h in states]
        z = [normaliser.z(h) for normaliser, h in zip(self.normalisers(), own, strict=True)]
        log_p = [
            normaliser.log_probability(h, wanted, of_h)
            for normaliser, h, of_h in zip(self.normalisers(), own, z, strict=True)
        ]
        features = gate_features(inputs, self.log_popularity, valid, [x.log().float() for x in z])
        return valid, features, torch.stack(log_p, dim=1), own, wanted

    def to_bytes(self) -> tuple[bytes, bytes]:
        """Return the contents of two safetensors files: the experts; the gate and what it reads."""
        state = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        experts = {name: value for name, value in state.items() if name.startswith("experts.")}
        gate = {name: value for name, value in state.items() if name not in experts}
        return safetensors.torch.save(experts), safetensors.torch.save(gate)

    @classmethod
    def from_bytes(cls, experts: bytes, gate: bytes) -> Mixture:
        """Return the frozen mixture of `to_bytes`, on the CPU; sizes are those of its tensors."""
        state = safetensors.torch.load(experts) | safetensors.torch.load(gate)
        n_items = len(state["log_popularity"]) - 1
        max_length, dim = state[f"experts.{EXPERTS.index('transformer')}.encoder.positions"].shape
        with torch.device("meta"):  # no time lost on random tables that the weights replace at once
            mixture = cls(
                [Expert(kind, n_items, dim, max_length, 0.0) for kind in EXPERTS],
                Gate(),
                torch.empty(n_items + 1),
            )
        mixture.load_state_dict(state, assign=True)
        return mixture.eval().requires_grad_(False)
