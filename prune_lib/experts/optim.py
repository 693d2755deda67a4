"""Adam for the rows of a table that a batch touches."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["RowAdam"]


class RowAdam:
    """Lazy Adam (as torch.optim.SparseAdam): only rows with a gradient move.

    Cost of a step: the rows of the batch, not the table. Dense Adam over diginetica's 43,097 x 64
    table would take longer than the forward and backward pass of an expert.
    """

    def __init__(
        self,
        table: Tensor,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
    ) -> None:
        """Take the table [rows, ...], which is updated in place."""
        self.table = table
        self.learning_rate = learning_rate
        self.betas = betas
        self.eps = eps
        self.mean = torch.zeros_like(table)
        self.square = torch.zeros_like(table)
        self.steps = 0

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor) -> None:
        """Move `table[rows]` (unique row indices [R]) against its gradient [R, ...]."""
        self.steps += 1
        first, second = self.betas
        mean = self.mean[rows].mul_(first).add_(gradient, alpha=1 - first)
        square = self.square[rows].mul_(second).addcmul_(gradient, gradient, value=1 - second)
        self.mean[rows] = mean
        self.square[rows] = square
        correction = (1 - second**self.steps) ** 0.5 / (1 - first**self.steps)
        update = mean.div_(square.sqrt_().add_(self.eps))
        self.table.index_add_(0, rows, update, alpha=-self.learning_rate * correction)
