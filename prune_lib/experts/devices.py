"""Where torch computes, and from which seed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_lib.errors import EnvironmentProblem

__all__ = ["in_whole_float32", "mixed_precision", "pick_device", "torch_state"]


def pick_device(device: str, rank: int = 0) -> torch.device:
    """Return the device that auto, cpu or cuda stands for.

    Args:
        device: auto, cpu or cuda.
        rank: number of the process among those of this machine, from 0: of several GPUs it takes its own.

    Raises:
        EnvironmentProblem: cuda was asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise EnvironmentProblem(
            "The device cuda was asked for (--device, or training.device in the settings), but "
            "torch finds no GPU here. Use auto or cpu."
        )
    if device == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", rank % max(1, torch.cuda.device_count()))


def mixed_precision(precision: str, device: torch.device) -> bool:
    """Whether auto, float32 or mixed stands for bfloat16 on a device."""
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "mixed"


@contextmanager
def torch_state(seed: int, threads: int) -> Iterator[None]:
    """Seed torch, set its threads, and compute in whole float32; put all back as they were."""
    before, rounded = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.set_num_threads(threads)
        in_whole_float32()
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.backends.cudnn.allow_tf32 = rounded


def in_whole_float32() -> None:
    """Let cuDNN's GRU multiply in float32 where float32 is asked for, not in TensorFloat-32, its default."""
    torch.backends.cudnn.allow_tf32 = False
