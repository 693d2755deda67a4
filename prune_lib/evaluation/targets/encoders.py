"""Encoders of the neural targets: a session's items to one state a position, strictly causally.

All take embedded inputs x [B, T, d] and items [B, T], padding at the end, and return states [B, T, d]
of which the one at position t has seen items 0..t only; so one pass trains on every prefix of a
session. They are the published architectures up to what the common trainer gives all of them alike:
tied item table, cosine scores with a learned scale, sampled softmax.

    gru4rec  Hidasi et al., ICLR 2016                       experts.models.RnnEncoder, wider
    sasrec   Kang and McAuley, ICDM 2018                    as the expert, wider and deeper
    srgnn    Wu et al., AAAI 2019                           experts.models.GnnEncoder, wider
    narm     Li et al., CIKM 2017                           here
    stamp    Liu et al., KDD 2018                           here
    hstu     Zhai et al., ICML 2024                         here: the modern one, of generative recommenders

No library that is kept up has them in a form that trains on all positions of a padded batch: RecBole has
five of the six, each tied to its own loader of one prefix a sample.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_lib.evaluation.targets.settings import NEURAL
from prune_lib.experts.models import Dropout, GnnEncoder, RnnEncoder, TransformerEncoder

__all__ = ["HstuEncoder", "NarmEncoder", "SasRecEncoder", "StampEncoder", "make_encoder"]


def _causal(length: int, x: Tensor) -> Tensor:
    """Ones where a position may look: [T, T], row t has columns 0..t."""
    return torch.ones(length, length, dtype=x.dtype, device=x.device).tril()


class SasRecEncoder(nn.Module):
    """Blocks of causal self-attention one after the other, and a last normalisation."""

    def __init__(self, dim: int, max_length: int, dropout: float, layers: int) -> None:
        """Build `layers` blocks; each has learned positions of its own."""
        super().__init__()
        self.blocks = nn.ModuleList(TransformerEncoder(dim, max_length, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d]."""
        for block in self.blocks:
            x = block(x, items)
        return cast(Tensor, self.norm(x))


class NarmEncoder(nn.Module):
    """A GRU whose last state attends over all states before it: main purpose beside what came last."""

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        """Build the GRU, the additive attention and the map of both parts to the items' space."""
        super().__init__()
        self.gru = nn.GRU(dim, dim, batch_first=True)
        self.of_last = nn.Linear(dim, dim, bias=False)
        self.of_each = nn.Linear(dim, dim, bias=False)
        self.energy = nn.Linear(dim, 1, bias=False)
        self.drop = Dropout(dropout)
        self.decode = nn.Linear(2 * dim, dim, bias=False)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d]; cost B T^2 d."""
        h = self.gru(x)[0]
        energy = self.energy(torch.sigmoid(self.of_last(h).unsqueeze(2) + self.of_each(h).unsqueeze(1)))
        local = (energy.squeeze(3) * _causal(h.shape[1], h)) @ h
        return cast(Tensor, self.decode(self.drop(torch.cat([h, local], dim=2))))


class StampEncoder(nn.Module):
    """Attention from the mean and the last item over the prefix, no recurrence: short-term priority."""

    def __init__(self, dim: int, max_length: int, dropout: float) -> None:
        """Build the attention and the two one-layer maps."""
        super().__init__()
        self.of_each = nn.Linear(dim, dim, bias=False)
        self.of_last = nn.Linear(dim, dim, bias=False)
        self.of_mean = nn.Linear(dim, dim)
        self.energy = nn.Linear(dim, 1, bias=False)
        self.session = nn.Linear(dim, dim)
        self.last = nn.Linear(dim, dim)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d]; cost B T^2 d."""
        causal = _causal(x.shape[1], x)
        mean = (causal / causal.sum(dim=1, keepdim=True)) @ x
        query = (self.of_last(x) + self.of_mean(mean)).unsqueeze(2)
        energy = self.energy(torch.sigmoid(query + self.of_each(x).unsqueeze(1))).squeeze(3)
        attended = (energy * causal) @ x
        # The product of the two is compared with the items: both must agree that an item fits.
        return torch.tanh(self.session(attended)) * torch.tanh(self.last(x))


class HstuEncoder(nn.Module):
    """Hierarchical sequential transduction units: pointwise gated attention without a softmax.

    U, V, Q, K = SiLU(linear(norm(x))); A = SiLU(Q K^T + relative position bias) / length;
    x + linear(norm(A V) * U). As published, without the bias by time: the feed has no times.
    """

    def __init__(self, dim: int, max_length: int, dropout: float, layers: int, heads: int = 2) -> None:
        """Build the layers."""
        super().__init__()
        self.heads = heads if dim % heads == 0 else 1
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm": nn.LayerNorm(dim),
                    "uvqk": nn.Linear(dim, 4 * dim),
                    "norm_out": nn.LayerNorm(dim),
                    "out": nn.Linear(dim, dim),
                }
            )
            for _ in range(layers)
        )
        self.bias = nn.Parameter(torch.zeros(layers, max_length))
        self.drop = Dropout(dropout)

    def forward(self, x: Tensor, items: Tensor) -> Tensor:
        """Return the states [B, T, d]."""
        batch, length, dim = x.shape
        causal = _causal(length, x)
        place = torch.arange(length, device=x.device)
        behind = (place.unsqueeze(1) - place.unsqueeze(0)).clamp(min=0)
        shape = (batch, length, self.heads, dim // self.heads)
        for layer, block in enumerate(cast("list[nn.ModuleDict]", list(self.blocks))):
            u, v, q, k = F.silu(block["uvqk"](block["norm"](x))).chunk(4, dim=2)
            q, k, v = (part.view(shape).transpose(1, 2) for part in (q, k, v))
            weights = F.silu(q @ k.transpose(2, 3) + self.bias[layer][behind]) * causal
            # By the length so far, where the original divides by that of the window: a state of one
            # pass must not depend on what comes after it.
            weights = weights / causal.sum(dim=1).unsqueeze(1)
            mixed = (weights @ v).transpose(1, 2).reshape(batch, length, dim)
            x = x + self.drop(block["out"](block["norm_out"](mixed) * u))
        return x


def make_encoder(name: str, *, dim: int, max_length: int, dropout: float, layers: int) -> nn.Module:
    """Build the encoder of a neural target.

    Args:
        name: one of NEURAL.
        dim: width.
        max_length: longest session.
        dropout: inside the encoder, where the architecture has any.
        layers: blocks of sasrec and hstu; the others have one.

    Raises:
        ValueError: no such target.
    """
    if name == "sasrec":
        return SasRecEncoder(dim, max_length, dropout, layers)
    if name == "hstu":
        return HstuEncoder(dim, max_length, dropout, layers)
    single: dict[str, type[nn.Module]] = {
        "gru4rec": RnnEncoder,
        "srgnn": GnnEncoder,
        "narm": NarmEncoder,
        "stamp": StampEncoder,
    }
    if name not in single:
        raise ValueError(f"a neural target is one of {', '.join(NEURAL)}; got {name}")
    return single[name](dim, max_length, dropout)
