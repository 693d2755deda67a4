"""What can be set about the experts: the key `training` of the project's settings."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DYNAMICS", "EXACT_LIMIT", "EXPERTS", "NEGATIVES", "SPREADS", "WHERE", "Score", "TrainSettings"]

#: The experts, in the order of every array, column and file that holds one entry per expert.
EXPERTS: tuple[str, ...] = ("gnn", "rnn", "transformer")
#: The normaliser is exact up to so many positions x items x experts (a minute of one core, about) ...
EXACT_LIMIT = 6e9
#: ... and beyond estimated from so many items: Spearman with the exact difficulty 0.986 on diginetica.
NEGATIVES = 8192
#: Scores of a prediction that need the probabilities of all items, see spread.py.
SPREADS: tuple[str, ...] = ("el2n", "margin", "entropy")
#: Settings that say where training runs: what comes out is as good. Of them `device` shows in the weights: in
#: their last bits, and by way of `precision`, whose auto stands for mixed on a GPU.
WHERE = frozenset({"device", "threads", "processes", "distributor"})
#: Scores of a prediction over the epochs of the training, see dynamics.py.
DYNAMICS: tuple[str, ...] = ("forgetting", "variability")
#: What difficulty can be, see difficulty.py.
Score = Literal["nll", "nll-raw", "el2n", "margin", "entropy", "disagreement", "forgetting", "variability"]


class TrainSettings(BaseModel):
    """How the experts and their gate are trained; frozen, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dim: int = Field(
        default=64,
        ge=4,
        le=1024,
        description="Width d of the item embeddings and of the experts' states.",
    )
    epochs: int = Field(
        default=6,
        ge=1,
        le=1000,
        description="Passes over the training feed at most (see `patience`).",
    )
    batch_size: int = Field(
        default=1024, ge=16, description="Padded positions (not sessions) in a training batch."
    )
    negatives: int = Field(
        default=512, ge=1, description="Negative items drawn per batch and shared by its positions."
    )
    negative_power: float = Field(
        default=0.75,
        ge=0.0,
        le=1.0,
        description="Negatives are drawn in proportion to popularity to this power (0: uniformly).",
    )
    learning_rate: float = Field(
        default=3e-3, gt=0.0, le=1.0, description="Adam's learning rate for the networks."
    )
    embedding_learning_rate: float = Field(
        default=4e-2,
        gt=0.0,
        le=1.0,
        description="Adam's learning rate for the item embeddings, of which a batch updates only "
        "the rows it touches; larger because a cold item is touched a few times only.",
    )
    dropout: float = Field(
        default=0.5,
        ge=0.0,
        lt=1.0,
        description="Dropout on the embedded inputs and on the final states.",
    )
    max_length: int = Field(
        default=50,
        ge=2,
        le=1000,
        description="The experts' window. Of a longer session they learn the last `max_length` items; it is "
        "scored on several windows, all of its items.",
    )
    patience: int = Field(
        default=1,
        ge=1,
        description="An expert whose held-out likelihood has not risen for this many epochs stops.",
    )
    validation_positions: int = Field(
        default=2048,
        ge=1,
        description="Held-out positions, about, on which early stopping is decided: those of the newest "
        "sessions where sessions have an order.",
    )
    snapshots: bool = Field(
        default=False,
        description="Keep the experts of every epoch: what the scores over epochs need (forgetting, "
        "variability). The bundle is that many times as large.",
    )
    gate_epochs: int = Field(default=30, ge=1, le=1000, description="Passes over the gate's slice at most.")
    gate_positions: int = Field(
        default=200_000,
        ge=1,
        description="Positions of the gate's slice, at most, that it is trained on.",
    )
    seed: int = Field(default=0, ge=0, lt=2**31, description="Seed of every random choice of the training.")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where training runs; auto: the GPU where there is one."
    )
    precision: Literal["auto", "float32", "mixed"] = Field(
        default="auto",
        description="mixed: the encoders' products in bfloat16 while they are trained (scores are float32 "
        "always). auto: mixed on a GPU that has it.",
    )
    processes: int = Field(
        default=0,
        ge=0,
        le=6,
        description="Trainings that run side by side, of six (three experts, two folds). 0: two on a CPU "
        "(one for a small input), one on each GPU.",
    )
    distributor: Literal["driver", "spark"] = Field(
        default="driver",
        description="Who runs them: processes of the driver's machine, or tasks of Spark's executors "
        "(TorchDistributor; the workspace is a folder that they share).",
    )
    threads: int = Field(
        default=1,
        ge=1,
        description="Torch's threads per fold on the CPU, where the two folds run side by side. "
        "Weights can differ in the last bits between thread counts: with 1 all machines agree.",
    )
