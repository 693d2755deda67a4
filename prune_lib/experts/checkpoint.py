"""An expert in training as a file: what a killed training goes on from, bit for bit.

Written at the end of every epoch, whole or not at all (safetensors; nothing is unpickled). After the last
one it holds the expert at its best and nothing else.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
from torch import Tensor

if TYPE_CHECKING:
    from prune_lib.experts.fitting import FittedExpert

__all__ = ["expert_file", "read_best", "restore", "save", "save_snapshot", "snapshot_file"]

_STATE, _BEST, _ADAM = "state.", "best.", "adam."


def expert_file(folder: Path, fold: int, kind: str) -> Path:
    """Where the checkpoint of an expert of a fold lies."""
    return folder / f"expert-{fold}-{kind}.safetensors"


def snapshot_file(folder: Path, fold: int, kind: str, epoch: int) -> Path:
    """Where the weights of an expert after an epoch lie, counted from 0."""
    return folder / f"snapshot-{fold}-{kind}-{epoch}.safetensors"


def save_snapshot(learner: FittedExpert, file: Path) -> None:
    """Write an expert's weights as they are."""
    _write(dict(learner.expert.state_dict()), file)


def save(learner: FittedExpert, file: Path) -> None:
    """Write where a training stands."""
    best = {_BEST + name: value for name, value in learner.kept.items()}
    if learner.done:
        tensors = best or {_BEST + name: value for name, value in learner.expert.state_dict().items()}
    else:
        tensors = {_STATE + name: value for name, value in learner.expert.state_dict().items()}
        tensors |= best
        for number, moments in learner.network.state_dict()["state"].items():
            tensors |= {f"{_ADAM}{number}.{name}": value for name, value in moments.items()}
        for name, rows in (("rows", learner.rows), ("biases", learner.biases)):
            tensors |= {f"{name}.mean": rows.mean, f"{name}.square": rows.square}
    about = {
        "epoch": learner.epoch,
        "best": learner.best,
        "stale": learner.stale,
        "done": learner.done,
        "steps": learner.rows.steps,
    }
    _write(tensors, file, {"training": json.dumps(about)})


def _write(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str] | None = None) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    made = file.with_suffix(f".{os.getpid()}")
    content = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    safetensors.torch.save_file(content, made, metadata=metadata)
    made.replace(file)


def restore(learner: FittedExpert, file: Path) -> bool:
    """Bring a new learner to where the file's training stood; False where there is no file."""
    if not file.is_file():
        return False
    tensors, about = _read(file)
    learner.epoch, learner.best = int(about["epoch"]), about["best"]
    learner.stale, learner.done = int(about["stale"]), bool(about["done"])
    device = learner.expert.weight.device
    learner.kept = {name: value.to(device) for name, value in _under(_BEST, tensors).items()}
    if learner.done:
        return True
    learner.expert.load_state_dict(_under(_STATE, tensors))
    adam = learner.network.state_dict()
    for name, value in _under(_ADAM, tensors).items():
        number, _, moment = name.partition(".")
        adam["state"].setdefault(int(number), {})[moment] = value
    learner.network.load_state_dict(adam)
    for name, rows in (("rows", learner.rows), ("biases", learner.biases)):
        rows.mean.copy_(tensors[f"{name}.mean"])
        rows.square.copy_(tensors[f"{name}.square"])
        rows.steps = int(about["steps"])
    return True


def read_best(file: Path) -> tuple[dict[str, Tensor], int]:
    """Return the weights of a trained expert at its best, and the epochs it took."""
    tensors, about = _read(file)
    return _under(_BEST, tensors), int(about["epoch"])


def _read(file: Path) -> tuple[dict[str, Tensor], dict[str, float]]:
    with safetensors.safe_open(file, framework="pt") as opened:
        about = json.loads(opened.metadata()["training"])
        return {name: opened.get_tensor(name) for name in opened.keys()}, about  # noqa: SIM118


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}
