"""One next-item model in training: a batch in terms of the rows that it touches, and a step on it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from prune_lib.experts.loss import NegativeSampler, accidental_hits, sampled_log_normaliser
from prune_lib.experts.models import Expert
from prune_lib.experts.optim import RowAdam

__all__ = ["Batch", "Learner"]


@dataclass
class Learner:
    """A model, its optimisers, and their learning rates.

    Attributes:
        expert: the model; its item table is moved row by row.
        learning_rate: Adam's, for the network.
        embedding_learning_rate: Adam's, for the item table's rows and biases.
    """

    expert: Expert
    learning_rate: float
    embedding_learning_rate: float
    network: torch.optim.Adam = field(init=False)
    rows: RowAdam = field(init=False)
    biases: RowAdam = field(init=False)

    def __post_init__(self) -> None:
        """Make the optimisers."""
        self.network = torch.optim.Adam(self.expert.parameters(), lr=self.learning_rate, betas=(0.9, 0.98))
        self.rows = RowAdam(self.expert.weight, self.embedding_learning_rate)
        self.biases = RowAdam(self.expert.bias, self.embedding_learning_rate)

    def step(self, batch: Batch, rate: float) -> Tensor:
        """Take one step on a batch, at `rate` times the learning rates; return the loss."""
        expert = self.expert
        weight = expert.weight[batch.rows].requires_grad_()
        bias = expert.bias[batch.rows].requires_grad_()
        h = expert.states(batch.inputs, weight[batch.inputs_at])
        h = h.flatten(0, 1).index_select(0, batch.valid_at)
        unit = torch.nn.functional.normalize(weight, dim=-1)
        positive = (h * unit[batch.targets_at]).sum(dim=1) + bias[batch.targets_at]
        log_z = sampled_log_normaliser(
            positive,
            h,
            unit[batch.negatives_at],
            bias[batch.negatives_at],
            (batch.hit_rows, batch.hit_columns),
            batch.log_expected,
        )
        loss = (log_z - positive).mean()
        self.network.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group in self.network.param_groups:
            group["lr"] = self.learning_rate * rate
        self.network.step()
        assert weight.grad is not None and bias.grad is not None  # noqa: S101
        real = slice(batch.real)
        self.rows.learning_rate = self.biases.learning_rate = self.embedding_learning_rate * rate
        self.rows.step(batch.rows[real], weight.grad[real])
        self.biases.step(batch.rows[real], bias.grad[real])
        return loss.detach()


@dataclass
class Batch:
    """A batch in terms of the rows it touches, to be shared by several models.

    All that a step has to look up by value is looked up here, on the CPU: a step on a GPU then never has to
    wait for an answer from it.

    Attributes:
        inputs: item indices [B, T], `n_items` where padded.
        valid_at: the N positions whose next item is a target, in the flattened inputs.
        rows: the distinct rows of the item table that the batch touches, ascending.
        real: how many of them are items; the row of padding and unknown comes last, and stays at zero.
        inputs_at: place of each input in `rows` [B, T].
        targets_at: place of each target in `rows` [N].
        negatives_at: place of each negative in `rows` [K].
        hit_rows: see `loss.accidental_hits`.
        hit_columns: likewise.
        log_expected: log of how often each negative is expected in the draw [K].
    """

    inputs: Tensor
    valid_at: Tensor
    rows: Tensor
    real: int
    inputs_at: Tensor
    targets_at: Tensor
    negatives_at: Tensor
    hit_rows: Tensor
    hit_columns: Tensor
    log_expected: Tensor

    @classmethod
    def of(
        cls,
        items: Tensor,
        sampler: NegativeSampler,
        k: int,
        n_items: int,
        device: torch.device,
        *,
        last_only: bool = False,
    ) -> Batch:
        """Make the batch of padded sessions [B, T + 1] with k negatives drawn.

        Args:
            items: padded sessions; padding (`n_items`) stands at the end.
            sampler: draws the negatives.
            k: how many.
            n_items: number of items.
            device: where the batch goes.
            last_only: only the last item of each session is a target.
        """
        drawn, log_expected = sampler.draw(k)
        inputs, targets = items[:, :-1], items[:, 1:]
        valid = targets != n_items
        if last_only:
            valid = valid & (valid.sum(dim=1, keepdim=True) == valid.cumsum(dim=1))
        rows, at = torch.unique(
            torch.cat([inputs.reshape(-1), targets[valid], torch.from_numpy(drawn)]),
            return_inverse=True,
        )
        inputs_at, targets_at, negatives_at = at.split([inputs.numel(), int(valid.sum()), k])
        hit_rows, hit_columns = accidental_hits(targets_at, negatives_at)
        return cls(
            inputs=inputs.to(device),
            valid_at=valid.flatten().nonzero().squeeze(1).to(device),
            rows=rows.to(device),
            real=int((rows < n_items).sum()),
            inputs_at=inputs_at.view_as(inputs).to(device),
            targets_at=targets_at.to(device),
            negatives_at=negatives_at.to(device),
            hit_rows=hit_rows.to(device),
            hit_columns=hit_columns.to(device),
            log_expected=torch.from_numpy(log_expected).to(device),
        )
