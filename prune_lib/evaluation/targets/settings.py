"""What can be set about the targets: the key `fit` of an evaluation's settings."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from prune_lib.settings.fields import Distinct

__all__ = ["COUNTED", "NEURAL", "FitSettings"]

#: Targets that learn by steps (see `encoders`), and targets that count.
NEURAL = ("gru4rec", "sasrec", "srgnn", "narm", "stamp", "hstu")
COUNTED = ("item-knn", "session-knn", "markov")

_LearningRate = Annotated[float, Field(gt=0, le=1)]
_Epochs = Annotated[float, Field(gt=0, le=1000)]


class FitSettings(BaseModel):
    """How the targets are trained; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    dim: int = Field(
        default=96, ge=2, le=1024, description="Width of the item embeddings and of the targets' states."
    )
    layers: int = Field(default=2, ge=1, le=64, description="Layers of sasrec and hstu.")
    dropout: float = Field(
        default=0.5, ge=0, lt=1, description="Dropout on the embedded inputs and on the final states."
    )
    negatives: int = Field(
        default=1024, ge=1, description="Negative items drawn per batch and shared by its positions."
    )
    negative_power: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Negatives are drawn in proportion to popularity to this power (0: uniformly).",
    )
    batch_size: int = Field(
        default=1024, ge=16, description="Padded positions (not sessions) in a training batch."
    )
    max_length: int = Field(
        default=50, ge=2, le=1000, description="A longer session is cut to its last `max_length` items."
    )
    steps: int = Field(
        default=0,
        ge=0,
        description="Batches that a target is trained for on the full data. 0: chosen on validation, see "
        "`epochs_tried`.",
    )
    learning_rate: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Adam's learning rate for the networks. 0: chosen on validation, see `candidates`.",
    )
    embedding_ratio: float = Field(
        default=12.0,
        gt=0,
        description="The item embeddings' learning rate as a multiple of `learning_rate`: larger, because a "
        "cold item is touched a few times only.",
    )
    candidates: Distinct[_LearningRate] = Field(
        default=(2e-3, 5e-3), min_length=1, description="Learning rates tried on validation."
    )
    epochs_tried: Distinct[_Epochs] = Field(
        default=(4.0, 8.0),
        min_length=1,
        description="Lengths of training tried on validation, in passes over the full data.",
    )
    neighbours: int = Field(
        default=100, ge=1, description="Nearest items or sessions that item-knn and session-knn count."
    )
