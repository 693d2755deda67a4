"""The experts on a GPU, beside the CPU: training, scoring, agreement, and a batch that does not fit.

    .venv/bin/spark-submit benchmarks/gpu.py --prepare /tmp/gpu \
        --input ../shared/data/diginetica/sessions_train.parquet --order-column session_id
    .venv/bin/python benchmarks/gpu.py --measure /tmp/gpu

The first command writes the training feed and the blocks of sessions that Spark would hand to its Python
workers. The second needs no Spark, so that a machine with a GPU and without Java will do. A block goes as it
does in Spark's stage: Arrow, pandas, `score_block`, pandas, Arrow; the bare loop has the same sessions as
padded arrays in memory and only runs the mixture. What Spark does around it (reading, grouping, sending) is
in `benchmarks/scoring.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from prune_lib.experts.mixture import Mixture  # noqa: E402
from prune_lib.experts.scoring import MICRO, score_block  # noqa: E402
from prune_lib.experts.settings import EXACT_LIMIT, EXPERTS, NEGATIVES, TrainSettings  # noqa: E402
from prune_lib.experts.workers import Work, results, run_rounds  # noqa: E402
from prune_lib.popularity import popularity_band  # noqa: E402

#: Sessions that the CPU scores, about: it is slow.
_FEW = 10_000


def prepare(folder: Path, input_table: str, order: str | None) -> None:
    """Write the feed, the blocks and the items' popularity, by Spark."""
    from pyspark.sql import functions as F

    from prune_lib import difficulty
    from prune_lib.experts.feed import with_bucket, write_feed
    from prune_lib.experts.scoring import with_windows
    from prune_lib.session import get_spark
    from prune_lib.sessions.columns import ColumnNames
    from prune_lib.sessions.encoding import encode
    from prune_lib.sessions.reading import open_input, to_sessions
    from prune_lib.settle import settle

    settings = TrainSettings()
    spark = get_spark("gpu")
    table = open_input(spark, input_table, columns=ColumnNames(order=order))
    encoded = encode(settle(to_sessions(table)), seed=0)
    folder.mkdir(parents=True, exist_ok=True)
    write_feed(
        encoded.sessions,
        folder / "feed",
        n_items=encoded.n_items,
        max_length=settings.max_length,
        recent=settings.validation_positions,
    )
    np.save(folder / "popularity.npy", encoded.item_sessions)
    rows = with_windows(encoded.sessions.select("sid", "items", "n", "fold", "tie"), settings.max_length)
    rows = with_bucket(rows, settings.max_length)
    block = difficulty._block_column(difficulty._n_blocks(rows))
    rows = rows.withColumn("block", block).orderBy("block", F.xxhash64("sid"))
    rows.coalesce(1).write.mode("overwrite").parquet(str(folder / "blocks"))


# ------------------------------------------------------------------------------------------- training


def train(folder: Path, epochs: int, runs: Sequence[tuple[str, int, str]]) -> list[tuple[Mixture, Mixture]]:
    """Train by (device, processes, precision); returns the mixtures of both folds of each run."""
    popularity = np.load(folder / "popularity.npy")
    found: list[tuple[Mixture, Mixture]] = []
    print(
        f"\nTraining, {epochs} epochs, six experts\n\n| device | processes | precision | seconds | gnn | rnn "
        "| transformer | gate | as the first |\n|---|---|---|---|---|---|---|---|---|"
    )
    for device, processes, precision in runs:
        settings = TrainSettings(
            device=device,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            epochs=epochs,
            patience=epochs,
        )
        with tempfile.TemporaryDirectory() as scratch:
            work = Work(folder / "feed", Path(scratch) / "work", settings, "pyarrow", progress=False)
            work.keep_popularity(popularity)
            started = time.perf_counter()
            run_rounds(work, processes)
            seconds = time.perf_counter() - started
            trained = results(work.folder)
        found.append((trained[0].mixture, trained[1].mixture))
        likelihoods = [
            np.mean([fold.metrics[f"log_likelihood_{name}"] for fold in trained])
            for name in (*EXPERTS, "gate")
        ]
        print(
            f"| {device} | {processes} | {precision} | {seconds:.1f} | "
            + " | ".join(f"{value:.3f}" for value in likelihoods)
            + f" | {_difference(found[0], found[-1])} |",
            flush=True,
        )
    return found


def _difference(one: tuple[Mixture, Mixture], other: tuple[Mixture, Mixture]) -> str:
    """The largest difference of any weight of two pairs of mixtures."""
    largest = max(
        float((x - y).abs().max())
        for a, b in zip(one, other, strict=True)
        for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
        if x.is_floating_point()
    )
    return "bit for bit" if largest == 0.0 else f"to {largest:.1g}"


# -------------------------------------------------------------------------------------------- scoring


class Blocks:
    """Blocks of sessions as Spark would send them, and as padded arrays."""

    def __init__(self, folder: Path, few: int | None = None) -> None:
        """Read them; `few`: so many sessions about, of every part of the file."""
        table = pq.read_table(folder / "blocks")
        frame = table.to_pandas()
        names = frame["block"].drop_duplicates().tolist()
        if few is not None and few < len(frame):
            names = names[:: round(len(frame) / few)]
        self.popularity = np.load(folder / "popularity.npy")
        self.n_items = len(self.popularity)
        self.arrow: list[bytes] = []
        self.padded: list[tuple[int, np.ndarray[Any, Any]]] = []
        self.sessions = 0
        wanted = frame[frame["block"].isin(set(names))]
        for _, block in wanted.groupby("block", sort=False):
            batch = pa.Table.from_pandas(block, preserve_index=False).combine_chunks()
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, batch.schema) as writer:
                writer.write_table(batch)
            self.arrow.append(sink.getvalue().to_pybytes())
            items = np.full((len(block), int(block["bucket"].iloc[0])), self.n_items, np.int64)
            for row, of_session in enumerate(block["items"]):
                items[row, : len(of_session)] = of_session
            self.padded.append((int(block["fold"].iloc[0]), items))
            self.sessions += len(block)

    def negatives(self) -> int:
        """Shared items of the normaliser, 0 for all, as a run would have it (by what is there)."""
        positions = sum(int((items[:, 1:] != self.n_items).sum()) for _, items in self.padded)
        return 0 if positions * self.n_items * len(EXPERTS) <= EXACT_LIMIT else NEGATIVES


class Scorer:
    """Scores blocks by the mixtures of both folds on a device."""

    def __init__(
        self, mixtures: tuple[Mixture, Mixture], blocks: Blocks, device: str, negatives: int
    ) -> None:
        """Move the mixtures there, each with its normaliser."""
        self.device = device
        self.mixtures = [Mixture.from_bytes(*mixture.to_bytes()).to(device) for mixture in mixtures]
        for mixture in self.mixtures:
            mixture.prepare(negatives=negatives)
        self._index = np.arange(blocks.n_items, dtype=np.int32)
        self._bands = popularity_band(np.append(blocks.popularity, 0))

    def stage(self, blocks: Blocks, batch: int) -> tuple[pd.DataFrame, dict[str, float]]:
        """The losses by session, and seconds by what they were spent on."""
        seconds = {"Arrow in": 0.0, "score_block": 0.0, "Arrow out": 0.0}
        out = []
        for content in blocks.arrow:
            at = [time.perf_counter()]
            with pa.ipc.open_stream(content) as stream:
                frame = stream.read_pandas()
            at.append(time.perf_counter())
            mixture = self.mixtures[1 - int(frame["fold"].iloc[0])]
            found = score_block(frame, mixture, self._index, self._bands, batch, False, None)
            at.append(time.perf_counter())
            sink = pa.BufferOutputStream()
            table = pa.Table.from_pandas(found, preserve_index=False)
            with pa.ipc.new_stream(sink, table.schema) as writer:
                writer.write_table(table)
            at.append(time.perf_counter())
            for name, spent in zip(seconds, np.diff(at), strict=True):
                seconds[name] += float(spent)
            out.append(found)
        return pd.concat(out), seconds

    def bare(self, blocks: Blocks, batch: int) -> float:
        """Seconds of the loop that only runs the mixture."""
        started = time.perf_counter()
        for fold, items in blocks.padded:
            size = max(1, batch // (items.shape[1] - 1))
            for i in range(0, len(items), size):
                _, log_p, log_g = self.mixtures[1 - fold](
                    torch.from_numpy(items[i : i + size]).to(self.device)
                )
                loss = torch.logsumexp(log_p + log_g, dim=1)
            loss.cpu()
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - started


@contextlib.contextmanager
def utilisation() -> Iterator[list[float]]:
    """Percent of the time in which the GPU had a kernel running, sampled."""
    found: list[float] = []
    stop = threading.Event()

    def sample() -> None:
        while not stop.wait(0.1):
            try:
                found.append(float(torch.cuda.utilization()))
            except Exception:  # the library that asks the driver is not there
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    yield found
    stop.set()
    thread.join()


def score(
    folder: Path, mixtures: tuple[Mixture, Mixture], batches: Sequence[int], device: str = "cuda"
) -> None:
    """Time the CPU and the GPU, and compare what they find."""
    few, blocks = Blocks(folder, _FEW), Blocks(folder)
    torch.set_num_threads(1)
    negatives = blocks.negatives()
    kind = f"{negatives:,} shared items" if negatives else f"all {blocks.n_items:,} items"
    print(
        f"\nScoring, {kind}\n\n| device | positions a batch | sessions | sessions/s | bare loop | share "
        "| Arrow | GPU busy |\n|---|---|---|---|---|---|---|---|"
    )
    on_gpu = Scorer(mixtures, blocks, device, negatives)
    on_gpu.stage(few, 2048)
    on_gpu.bare(few, 2048)
    found = {}
    for batch in batches:
        with utilisation() as busy:
            found[batch], seconds = on_gpu.stage(blocks, batch)
        _timed("cuda", batch, blocks, seconds, on_gpu.bare(blocks, batch), busy)
    on_cpu = Scorer(mixtures, few, "cpu", negatives)
    expected, seconds = on_cpu.stage(few, 2048)
    _timed("cpu, one thread", 2048, few, seconds, on_cpu.bare(few, 2048), [])
    first = found[batches[0]]
    again, _ = on_gpu.stage(blocks, batches[0])
    by_few, _ = on_gpu.stage(few, batches[0])
    print(f"\n- GPU and CPU: {_compared(first, expected)}")
    print(f"- the GPU twice: {_compared(again, first)}")
    print(f"- the GPU, other sessions beside them: {_compared(first, by_few)}")
    for batch in batches[1:]:
        print(f"- the GPU, {batch:,} positions a batch: {_compared(found[batch], first)}")
    if device != "cpu":
        _too_large(on_gpu, few)


def _timed(
    name: str, batch: int, blocks: Blocks, seconds: dict[str, float], bare: float, busy: list[float]
) -> None:
    total = sum(seconds.values())
    arrow = seconds["Arrow in"] + seconds["Arrow out"]
    shown = f"{np.mean(busy):.0f} %" if busy else ""
    print(
        f"| {name} | {batch:,} | {blocks.sessions:,} | {blocks.sessions / total:,.0f} "
        f"| {blocks.sessions / bare:,.0f} | {bare / total:.2f} | {100 * arrow / total:.1f} % | {shown} |",
        flush=True,
    )


def _compared(one: pd.DataFrame, other: pd.DataFrame) -> str:
    """How losses by session differ, of the sessions that both have."""
    mean = [
        pd.Series([np.mean(losses) / MICRO if len(losses) else np.nan for losses in x["losses"]], x["sid"])
        for x in (one, other)
    ]
    both = pd.concat([x[~x.index.duplicated()] for x in mean], axis=1, join="inner", keys=["a", "b"]).dropna()
    largest = float((both["a"] - both["b"]).abs().max())
    rank = both["a"].rank().corr(both["b"].rank())
    same = "the same bit for bit" if largest == 0.0 else f"differ by {largest:.2g} nats at most"
    return f"{len(both):,} sessions, losses {same}, Spearman {rank:.6f}"


def _too_large(scorer: Scorer, blocks: Blocks) -> None:
    """Score with so little memory that a batch does not fit: it is halved, and the losses stay."""
    expected, _ = scorer.stage(blocks, 2048)
    torch.cuda.empty_cache()
    there = torch.cuda.memory_allocated() + 60 * 2**20
    torch.cuda.set_per_process_memory_fraction(there / torch.cuda.get_device_properties(0).total_memory)
    try:
        found, _ = scorer.stage(blocks, 1 << 17)
        print(f"\n- 60 MiB free and 131,072 positions a batch: {_compared(found, expected)}")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def _share(content: tuple[Any, ...], folder: Path, device: str, rank: int, n: int, pipe: Any) -> None:
    """One of several processes on the GPU."""
    torch.set_num_threads(1)
    blocks = Blocks(folder)
    negatives = blocks.negatives()
    blocks.arrow = blocks.arrow[rank::n]
    mixtures = (Mixture.from_bytes(*content[0]), Mixture.from_bytes(*content[1]))
    scorer = Scorer(mixtures, blocks, device, negatives)
    scorer.stage(Blocks(folder, 2000), 2048)
    pipe.send(True)
    pipe.recv()
    scorer.stage(blocks, 2048)
    pipe.send(True)


def side_by_side(
    folder: Path, mixtures: tuple[Mixture, Mixture], counts: Sequence[int], device: str = "cuda"
) -> None:
    """Several processes share the GPU, as Spark's tasks do."""
    context = multiprocessing.get_context("spawn")
    sessions = Blocks(folder).sessions
    print("\nProcesses that share the GPU\n\n| processes | sessions/s | GPU busy |\n|---|---|---|")
    content = tuple(mixture.to_bytes() for mixture in mixtures)
    for n in counts:
        pipes = []
        for rank in range(n):
            here, there = context.Pipe()
            context.Process(
                target=_share, args=(content, folder, device, rank, n, there), daemon=True
            ).start()
            pipes.append(here)
        for pipe in pipes:
            pipe.recv()
        with utilisation() as busy:
            started = time.perf_counter()
            for pipe in pipes:
                pipe.send(True)
            for pipe in pipes:
                pipe.recv()
            seconds = time.perf_counter() - started
        print(f"| {n} | {sessions / seconds:,.0f} | {np.mean(busy or [np.nan]):.0f} % |", flush=True)


def main() -> None:
    """Prepare, or measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prepare", type=Path, help="folder to write to")
    parser.add_argument("--input", help="sessions or events, Delta or Parquet")
    parser.add_argument("--order-column", help="ranks sessions where there are no times")
    parser.add_argument("--measure", type=Path, help="folder that --prepare wrote")
    parser.add_argument("--part", choices=("training", "scoring", "both"), default="both")
    parser.add_argument("--epochs", type=int, default=3, help="of each training")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if asked.prepare:
        prepare(asked.prepare, asked.input, asked.order_column)
    if asked.measure:
        if not torch.cuda.is_available():
            raise SystemExit("torch finds no GPU here")
        print(
            f"{torch.cuda.get_device_name(0)}, torch {torch.__version__}, {multiprocessing.cpu_count()} cores"
        )
        runs = [("cuda", 1, "mixed")]
        if asked.part != "scoring":
            runs += [("cuda", 6, "mixed"), ("cuda", 6, "float32"), ("cpu", 6, "float32")]
        trained = train(asked.measure, asked.epochs, runs)
        if asked.part != "training":
            score(asked.measure, trained[0], (2048, 16_384))
            side_by_side(asked.measure, trained[0], (2, 4))


if __name__ == "__main__":
    main()
