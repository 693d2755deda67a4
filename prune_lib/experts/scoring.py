"""Losses of the sessions of one block under the frozen mixture: what an executor's Python worker does.

A block is a group of sessions of one padded length and one fold, of `BLOCK_POSITIONS` padded positions
about. A session longer than the experts' window of `max_length` clicks has several rows in it, one a window
(`with_windows`), and its losses are those of all of them.

A loss is the same, bit for bit, whatever it is computed beside: batches have one shape, filled up with rows
of padding, because products of few rows or of an odd number of columns go other ways through the processor
and end in other last bits. (Another kind of processor may differ in them all the same.)
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from prune_lib.experts.settings import DYNAMICS, EXPERTS, SPREADS

if TYPE_CHECKING:
    import pandas as pd
    from pyspark.sql import DataFrame

    from prune_lib.experts.mixture import Mixture

__all__ = [
    "BLOCK_POSITIONS",
    "BLOCK_SCHEMA",
    "MEANS",
    "MICRO",
    "SAMPLE_SCHEMA",
    "cached_mixture",
    "score_block",
    "task_device",
    "with_windows",
]

log = logging.getLogger(__name__)

#: Losses enter sums over the input as integers of this unit.
MICRO = 1_000_000
#: Padded positions in a block, about: enough batches to be worth a group, few enough to spread over
#: cores.
BLOCK_POSITIONS = 16_384
#: score columns that come out of a block as they are (rounded later)
MEANS = (
    *(f"difficulty_{kind}" for kind in EXPERTS),
    *(f"gate_{kind}" for kind in EXPERTS),
    "disagreement",
)
_DOUBLES = ", ".join(f"{name} DOUBLE" for name in MEANS)
#: `extra`: the score, where it is one of SPREADS or DYNAMICS
BLOCK_SCHEMA = f"sid BIGINT, losses ARRAY<BIGINT>, bands ARRAY<INT>, {_DOUBLES}, extra DOUBLE"
#: of samples, a row a scored position
SAMPLE_SCHEMA = f"sid BIGINT, length INT, loss BIGINT, band INT, {_DOUBLES}, extra DOUBLE"


def with_windows(sessions: DataFrame, max_length: int) -> DataFrame:
    """Cut sessions that do not fit the experts into windows, so that each click after the first is scored.

    A window holds `max_length` clicks and starts half of them after the one before (the last window ends
    with the session, so it starts earlier). A click is scored in the first window that holds it: with all
    clicks before it in the session, or half a window of them at least.

    Args:
        sessions: frame with `items` ARRAY<INT>, `n` INT (their number); other columns pass through.
        max_length: clicks of a window.

    Returns:
        A row a window: `items` its clicks, `cut` INT the clicks before it, `seen` INT how many of its first
        clicks are not scored in it (1 in a session's first window). Cost: twice the clicks of long sessions.
    """
    from pyspark.sql import functions as F

    stride = max(1, max_length // 2)
    last = F.greatest(F.ceil((F.col("n") - max_length) / F.lit(stride)), F.lit(0)).cast("int")
    number = F.explode(F.sequence(F.lit(0), last))
    end = F.least(F.lit(max_length) + F.col("_window") * stride, F.col("n"))
    before = F.lit(max_length) + (F.col("_window") - 1) * stride  # where the window before ends
    return (
        sessions.withColumn("_window", number)
        .withColumn("cut", F.greatest(end - max_length, F.lit(0)).cast("int"))
        .withColumn("seen", F.when(F.col("_window") == 0, 1).otherwise(before - F.col("cut")).cast("int"))
        .withColumn("items", F.slice("items", F.col("cut") + 1, max_length))
        .drop("_window")
    )


def score_block(
    block: pd.DataFrame,
    mixture: Mixture,
    index: npt.NDArray[np.int32],
    bands: npt.NDArray[np.int32],
    batch_size: int,
    by_sample: bool,
    extra: str | None,
    carried: Sequence[str] = (),
) -> pd.DataFrame:
    """Score the sessions of one block, in the order of their sid.

    Args:
        block: a row a window: sid, items, cut, seen (see `with_windows`), bucket (padded length, the same in
            all rows), and what is carried.
        mixture: the experts that did not see them.
        index: the bundle's index of each of the input's items, `n_items` where it does not know it.
        bands: popularity band of the bundle's items [n_items + 1].
        batch_size: padded positions of a batch; BLOCK_POSITIONS at most.
        by_sample: a row a scored click (`SAMPLE_SCHEMA`); else a row a session (`BLOCK_SCHEMA`).
        extra: one of SPREADS or DYNAMICS, where it is asked for.
        carried: columns of the sessions that are passed on behind the others.
    """
    import pandas as pd

    block = block.sort_values(["sid", "cut"])
    length = int(block["bucket"].iloc[0])
    sizes = np.array([len(items) for items in block["items"]])
    # An even number of inputs, see the module's head.
    inside = np.arange(length + (length - 1) % 2) < sizes[:, None]
    items = np.full(inside.shape, mixture.n_items, dtype=np.int64)
    items[inside] = index[np.concatenate(block["items"].to_numpy())]
    # A block holds no more: what is beyond would be padding.
    size = max(1, min(batch_size, BLOCK_POSITIONS) // (length - 1))
    valid, log_p, log_g, extras = _forward(mixture, items, size, extra)
    # The first window that holds a click scores it.
    scored = valid & (np.arange(2, items.shape[1] + 1) > block["seen"].to_numpy()[:, None])
    log_p, log_g, extras = (x[scored[valid]] for x in (log_p, log_g, extras))
    micro = np.rint(-np.logaddexp.reduce(log_p + log_g, axis=1) * MICRO).astype(np.int64)
    band = bands[items[:, 1:][scored]]
    values = np.concatenate([-log_p, np.exp(log_g), log_p.std(axis=1, keepdims=True), extras], axis=1)
    columns = (*MEANS, "extra")
    row, column = np.nonzero(scored)
    if by_sample:
        of_position: dict[str, npt.NDArray[Any]] = {
            "sid": block["sid"].to_numpy()[row],
            # the first target is a session's second click
            "length": (block["cut"].to_numpy()[row] + column + 2).astype(np.int32),
            "loss": micro,
            "band": band,
        }
        samples: pd.DataFrame = pd.DataFrame({**of_position, **dict(zip(columns, values.T, strict=True))})
        return samples
    sids, first, session = np.unique(block["sid"].to_numpy(), return_index=True, return_inverse=True)
    counts = np.bincount(session[row], minlength=len(sids))
    ends = np.cumsum(counts)[:-1]
    means = np.full((len(sids), values.shape[1]), np.nan)
    some = counts > 0
    for k in range(values.shape[1]):
        total = np.bincount(session[row], weights=values[:, k], minlength=len(sids))
        means[some, k] = total[some] / counts[some]
    out = {"sid": sids, "losses": np.split(micro, ends), "bands": np.split(band, ends)}
    frame: pd.DataFrame = pd.DataFrame(out)
    for k, name in enumerate(columns):
        frame[name] = pd.Series(means[:, k], dtype="Float64")  # missing becomes NULL, not NaN
    for name in carried:
        frame[name] = block[name].to_numpy()[first]
    return frame


def _forward(
    mixture: Mixture, items: npt.NDArray[np.int64], size: int, extra: str | None
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return valid [B, L - 1]; of the N valid positions log p, log g [N, 3] and the extra score [N, 1]."""
    import torch

    device = mixture.log_popularity.device
    names: tuple[str, ...] = ()
    run: Callable[[torch.Tensor], tuple[torch.Tensor, ...]] = mixture
    if extra in SPREADS:
        names, run = SPREADS, mixture.with_spread
    elif extra in DYNAMICS:
        names, run = DYNAMICS, mixture.with_dynamics
    n = len(items)
    while True:
        filled = np.pad(items, ((0, -n % size), (0, 0)), constant_values=mixture.n_items)
        try:
            batches = (torch.from_numpy(filled[i : i + size]).to(device) for i in range(0, len(filled), size))
            parts = [[x.cpu() for x in run(batch)] for batch in batches]
            break
        except torch.OutOfMemoryError:
            if size == 1:
                raise
            size //= 2
            log.warning("the GPU's memory was too small for a batch; on with %d sessions at a time", size)
            torch.cuda.empty_cache()
    valid, log_p, log_g, *extras = (torch.cat(x) for x in zip(*parts, strict=True))
    chosen = np.full((len(log_p), 1), np.nan)
    if extra in names:
        chosen = extras[0][:, [names.index(extra)]].numpy()
    return valid[:n].numpy(), log_p.double().numpy(), log_g.double().numpy(), chosen


#: One worker keeps the models it used last; a worker serves several tasks of a run.
_MIXTURES: dict[tuple[str, int, str, int, bool], Mixture] = {}


def cached_mixture(
    key: tuple[str, int, str, int, bool], load: Callable[[], tuple[bytes, bytes, bytes | None]]
) -> Mixture:
    """Return a worker's mixture, made where it has none yet.

    Args:
        key: the bundle's hash, the fold, the device, the number of shared negatives (0: exact), and whether
            the experts of every epoch are wanted.
        load: returns the contents of experts and gate, and of the experts of every epoch.
    """
    from prune_lib.experts.devices import in_whole_float32
    from prune_lib.experts.mixture import Mixture

    in_whole_float32()
    if key not in _MIXTURES:
        if any(known[0] != key[0] for known in _MIXTURES):
            _MIXTURES.clear()  # another bundle: the former's weights are not needed again
        experts, gate, snapshots = load()
        mixture = Mixture.from_bytes(experts, gate).to(key[2])
        mixture.prepare(negatives=key[3])
        if snapshots is not None:
            mixture.take_snapshots(snapshots, negatives=key[3])
        _MIXTURES[key] = mixture
    return _MIXTURES[key]


def task_device(device: str) -> str:
    """Return the torch device of this task, for auto, cpu or cuda."""
    if device == "cpu":
        return "cpu"
    from pyspark import TaskContext

    task = TaskContext.get()
    gpus = task.resources().get("gpu") if task is not None else None
    if gpus is not None and gpus.addresses:
        return f"cuda:{gpus.addresses[0]}"
    if device != "cuda":
        return "cpu"
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("--device cuda was asked for, and torch finds no GPU on this executor")
    return "cuda"
