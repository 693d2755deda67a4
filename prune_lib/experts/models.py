"""The three next-item experts and the gate.

Each expert maps the items of a session to one state per position, all positions in one pass and
strictly
causally: the state at position t depends on items 0..t only, and stands for p(item t+1 | items
0..t). One layer each, width d. Items are embedded once, and the same table (tied weights) scores
the next item:

    score(i) = scale * cos(h_t, w_i) + bias_i

The bias starts at the item's log popularity, so that an expert that has learnt nothing predicts
popularity. The cosine keeps popular items from winning by the length of their vectors.

Shapes: B sessions, T positions, d width. Item index `n_items` is the row of padding and of unknown
    items.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_lib.experts.settings import EXPERTS

__all__ = [
    "Dropout",
    "Expert",
    "Gate",
    "GnnEncoder",
    "RnnEncoder",
    "TransformerEncoder",
    "gate_features",
    "make_expert",
]

#: Start of the learned scale of the cosine; within [1, 50] it is then learned.
INITIAL_SCALE = 12.0


class Dropout(nn.Module):
    """As nn.Dropout, by uniform numbers: torch draws those four times as fast on a CPU as Bernoulli's."""

    def __init__(self, p: float) -> None:
        """Take the probability that an element is dropped, in [0, 1)."""
        super().__init__()
        self.p = p
        #: draws the uniform numbers; None: torch's own
        self.generator: torch.Generator | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Return x, in training with elements dropped and the others divided by 1 - p."""
        if not self.training or self.p == 0.0:
            return x
        uniform = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=self.generator)
        return x * (uniform >= self.p).to(x.dtype).mul_(1.0 / (1.0 - self.p))


class RnnEncoder(nn.Module):
    """One GRU layer over the session (GRU4Rec: Hidasi et al., ICLR 2016)."""

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        """Build the layer; `max_length` and `dropout` are taken for a common signature."""
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d] of embedded inputs x [B, T, d]; padding stands at the end."""
        return cast(Tensor, self.gru(x)[0])


class TransformerEncoder(nn.Module):
    """One causal self-attention block, pre-norm (SASRec: Kang and McAuley, ICDM 2018).

    Positions are learned and counted from the session's start.
    """

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        """Build the block with two heads; positions up to `max_length`."""
        super().__init__()
        self.heads = 2 if dim % 2 == 0 else 1
        self.positions = nn.Parameter(torch.randn(max_length, dim).mul_(0.02))
        self.norm_attention = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d] of embedded inputs x [B, T, d]; padding stands at the end."""
        batch, length, dim = x.shape
        x = x + self.positions[:length]
        qkv = self.qkv(self.norm_attention(x)).view(batch, length, 3, self.heads, dim // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.out(attended.transpose(1, 2).reshape(batch, length, dim)))
        return cast(Tensor, x + self.drop(self.mlp(self.norm_mlp(x))))


class GnnEncoder(nn.Module):
    """Causal gated graph over the session's items (SR-GNN: Wu et al., AAAI 2019).

    The state of position t is that of its item in the graph of the prefix 0..t: the items that came
    right before it and right after it there, each row-normalised, go through an in- and an out-map
    and a GRU cell. The readout at t attends over the states of 0..t with the state of t. (SR-GNN
    would compute the states of the older nodes anew for each prefix; here node j keeps the state it
    had when it was clicked, which is what makes one pass over all prefixes possible.)
    """

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        """Build the maps; `max_length` and `dropout` are taken for a common signature."""
        super().__init__()
        self.into = nn.Linear(dim, dim)
        self.out_of = nn.Linear(dim, dim)
        self.cell = nn.GRUCell(2 * dim, dim)
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim, bias=False)
        self.score = nn.Linear(dim, 1, bias=False)
        self.readout = nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d] of embedded inputs x [B, T, d] and items [B, T].

        Equal numbers in `items` are one item, whatever they are.
        """
        batch, length, dim = x.shape
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        # same[b, t, u]: position u <= t holds the item of position t
        same = ((items.unsqueeze(2) == items.unsqueeze(1)) & causal).to(x.dtype)
        # neighbours of t: u precedes an occurrence (same[t, u+1]) or follows one (same[t, u-1], u
        # <= t)
        before = F.pad(same[:, :, 1:], (0, 1))
        after = F.pad(same[:, :, :-1], (1, 0)) * causal
        incoming = _row_normalised(before) @ self.into(x)
        outgoing = _row_normalised(after) @ self.out_of(x)
        messages = torch.cat([incoming, outgoing], dim=2).view(batch * length, 2 * dim)
        nodes = self.cell(messages, x.reshape(batch * length, dim)).view(batch, length, dim)
        attention = self.score(torch.sigmoid(self.query(nodes).unsqueeze(2) + self.key(nodes).unsqueeze(1)))
        session = (attention.squeeze(3) * causal) @ nodes
        return cast(Tensor, self.readout(torch.cat([nodes, session], dim=2)))


def _row_normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(dim=2, keepdim=True).clamp(min=1.0)


_ENCODERS: dict[str, type[nn.Module]] = {
    "gnn": GnnEncoder,
    "rnn": RnnEncoder,
    "transformer": TransformerEncoder,
}


class Expert(nn.Module):
    """An encoder with its tied item table: `weight` [n_items + 1, d] and `bias` [n_items + 1].

    The table is held as plain tensors outside autograd (`weight`, `bias` are buffers): training
    takes the rows that a batch touches and updates only those (see `optim.RowAdam`), because a
    dense update of a large table costs more than the whole model.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        kind: str,
        n_items: int,
        dim: int,
        max_length: int,
        dropout: float,
        encoder: nn.Module | None = None,
    ) -> None:
        """Build a model with a random table and no popularity bias yet.

        Args:
            kind: its name; one of EXPERTS where `encoder` is absent.
            n_items: number of items.
            dim: width d.
            max_length: longest session.
            dropout: on the embedded inputs and on the states.
            encoder: maps (x [B, T, d], items [B, T]) to states [B, T, d], causally; an expert's own
                where absent.
        """
        super().__init__()
        self.kind = kind
        self.n_items = n_items
        self.encoder = _ENCODERS[kind](dim, max_length, dropout) if encoder is None else encoder
        self.drop = Dropout(dropout)
        #: the encoder computes in bfloat16 where that is precise enough
        self.mixed = False
        self.log_scale = nn.Parameter(torch.tensor(float(np.log(INITIAL_SCALE))))
        # In place, as in the encoders: on the meta device (`Mixture.from_bytes`) the other way imports
        # torch's compiler, which takes a second.
        table = torch.randn(n_items + 1, dim).div_(dim**0.5)
        table[n_items] = 0.0
        self.register_buffer("weight", table)
        self.register_buffer("bias", torch.zeros(n_items + 1))

    def states(self, items: Tensor, x: Tensor | None = None) -> Tensor:
        """Return unit-length states times the scale, [B, T, d].

        Args:
            items: item indices [B, T], `n_items` where padded or unknown.
            x: the embedded items [B, T, d]; looked up in the table where absent.
        """
        if x is None:
            x = self.weight[items]
        # Unknown items share a row, and are not for that the same item clicked again: each is one of its own.
        own = -1 - torch.arange(items.shape[1], device=items.device)
        items = torch.where(items == self.n_items, own, items)
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.mixed):
            h = self.encoder(self.drop(x), items)
        h = self.drop(h.float())
        return F.normalize(h, dim=-1) * self.log_scale.clamp(0.0, 3.9).exp()

    def seed_dropout(self, seed: int) -> None:
        """Let dropout draw from a generator of its own, which starts at the seed."""
        generator = torch.Generator(self.weight.device).manual_seed(seed)
        for module in self.modules():
            if isinstance(module, Dropout):
                module.generator = generator

    def output_table(self) -> Tensor:
        """Return the unit-length item vectors [n_items, d] that states are multiplied with."""
        return F.normalize(self.weight[: self.n_items], dim=-1)


def make_expert(
    kind: str,
    popularity: npt.NDArray[np.int64],
    *,
    dim: int,
    max_length: int,
    dropout: float,
    encoder: nn.Module | None = None,
) -> Expert:
    """Build an expert whose item bias is the log popularity (sessions per item, [n_items])."""
    expert = Expert(kind, len(popularity), dim, max_length, dropout, encoder)
    share = np.log((popularity + 1.0) / (popularity + 1.0).sum())
    expert.bias[: len(popularity)] = torch.from_numpy(share).float()
    return expert


class Gate(nn.Module):
    """MLP from what is known before the target to a softmax over the experts.

    Its inputs are few, because few predictions teach it (a tenth of a fold): with the experts' states
    among them, 195 inputs, it hardly beat a uniform mixture (docs/experts.md). The last layer starts at
    zero, so that an untrained gate is the uniform mixture.
    """

    #: log popularity of the last item and its mean over the prefix, log position, and log Z of each expert
    INPUTS = 3 + len(EXPERTS)
    HIDDEN = 32

    centre: Tensor
    spread: Tensor

    def __init__(self) -> None:
        """Build an untrained gate."""
        super().__init__()
        self.register_buffer("centre", torch.zeros(self.INPUTS))
        self.register_buffer("spread", torch.ones(self.INPUTS))
        self.hidden = nn.Linear(self.INPUTS, self.HIDDEN)
        self.last = nn.Linear(self.HIDDEN, len(EXPERTS))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def standardise(self, features: Tensor) -> None:
        """Take centre and spread of the inputs from those [N, INPUTS] that the gate is trained on."""
        if len(features) > 1:
            self.centre = features.mean(dim=0)
            spread = features.std(dim=0)
            # What never varied has taught nothing: its weights are as they were drawn, and it is left out.
            self.spread = torch.where(spread < 1e-3, torch.inf, spread)

    def forward(self, features: Tensor) -> Tensor:
        """Return log g, [N, 3], for features [N, INPUTS] as `gate_features` makes them."""
        inputs = (features - self.centre) / self.spread
        return F.log_softmax(self.last(torch.relu(self.hidden(inputs))), dim=-1)


def gate_features(items: Tensor, log_popularity: Tensor, valid: Tensor, log_z: list[Tensor]) -> Tensor:
    """Return the gate's inputs [N, INPUTS].

    Args:
        items: item indices [B, T], `n_items` where padded or unknown.
        log_popularity: log(1 + sessions) per item, standardised, 0 for the row of unknown, [n_items
            + 1].
        valid: the N positions that are asked for, bool [B, T].
        log_z: log of each expert's normaliser there [N]: how many items it deems possible. Nothing of
            the target may be in it.
    """
    of_last = log_popularity[items]
    counts = torch.arange(1, items.shape[1] + 1, device=items.device, dtype=of_last.dtype)
    mean = of_last.cumsum(dim=1) / counts
    position = counts.log().expand_as(of_last)
    known = [x[valid] for x in (of_last, mean, position)]
    return torch.stack([*known, *log_z], dim=1)
