"""Cells: one training of one target on one subset, by a name that says all that decides its result.

A cell's id is a hash of the data, the subset's sessions, the target and how it is trained; what two rows
of a table share (all the data under both regimes, a target without a seed) is one cell, and a cell that
is done is never done again, on this machine or where its results were brought from.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["Cell", "CellResult", "CellStore", "WORST_RANK", "export_cells", "import_cells"]

#: Raised when the same cell would give another result.
FORMAT = 3
#: The same for cells of one target. srgnn: unknown items of a prefix are no longer one item clicked again.
REVISIONS: Mapping[str, int] = {"srgnn": 1}
#: This rank stands for itself and all behind it: no metric at a cut-off of 20 tells them apart.
WORST_RANK = 21


@dataclass(frozen=True)
class Cell:
    """One training and ranking.

    Attributes:
        data: hash of the training sessions (the vocabulary) and of the test cases.
        subset: hash of the sessions trained on.
        target: name of the target.
        samples: positions, prefixes or last; positions for targets that count.
        steps: optimisation steps; 0 for targets that count.
        seed: of the training; 0 for targets that count.
        recipe: the rest of what decides.
    """

    data: str
    subset: str
    target: str
    samples: str
    steps: int
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """16 hexadecimal digits."""
        revision = [REVISIONS[self.target]] if self.target in REVISIONS else []
        text = json.dumps([FORMAT, asdict(self), *revision], sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class CellResult:
    """What a cell gave.

    Attributes:
        id: the cell's.
        ranks: place of each case's target, at most WORST_RANK, uint8 [cases].
        numbers: coverage, mean_popularity, gini (of what is recommended); train_seconds, rank_seconds;
            steps, passes, learned, loss where the target is neural.
    """

    id: str
    ranks: npt.NDArray[np.uint8]
    numbers: Mapping[str, float]


class CellStore:
    """Results of cells as files of a folder, each written whole or not at all."""

    def __init__(self, folder: Path) -> None:
        """Open or make the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder

    def __contains__(self, cell_id: str) -> bool:
        """Whether a cell is done."""
        return self._file(cell_id).is_file()

    def put(self, result: CellResult) -> None:
        """Keep a result; another process may do the same at the same time."""
        head = json.dumps(dict(result.numbers), sort_keys=True).encode()
        body = zlib.compress(np.minimum(result.ranks, WORST_RANK).astype(np.uint8).tobytes(), 9)
        part = self.folder / f".{result.id}.{os.getpid()}"
        part.write_bytes(len(head).to_bytes(4, "little") + head + body)
        part.replace(self._file(result.id))

    def get(self, cell_id: str) -> CellResult:
        """The result of a cell that is done.

        Raises:
            KeyError: it is not.
        """
        try:
            content = self._file(cell_id).read_bytes()
        except FileNotFoundError:
            raise KeyError(cell_id) from None
        size = int.from_bytes(content[:4], "little")
        ranks = np.frombuffer(zlib.decompress(content[4 + size :]), np.uint8)
        return CellResult(cell_id, ranks, json.loads(content[4 : 4 + size]))

    def names(self) -> set[str]:
        """Ids of all cells that are done."""
        return {file.name for file in self.folder.iterdir() if not file.name.startswith(".")}

    def missing(self, cells: Iterable[Cell]) -> list[Cell]:
        """Cells that are not done, each once."""
        return list({cell.id: cell for cell in cells if cell.id not in self}.values())

    def _file(self, cell_id: str) -> Path:
        return self.folder / cell_id


def export_cells(store: CellStore, cells: Sequence[str], file: Path) -> None:
    """Write cells' results to a file by which another machine can go on; what it has already stays.

    Cells of another FORMAT do not: nothing asks for them any more.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    known = import_cells(store, file)
    rows = [
        {
            "format": FORMAT,
            "cell": name,
            "numbers": json.dumps(dict(found.numbers), sort_keys=True),
            "ranks": np.minimum(found.ranks, WORST_RANK).tobytes(),
        }
        for name in sorted(known | set(cells))
        for found in [store.get(name)]
    ]
    part = file.with_suffix(".part")
    pd.DataFrame(rows).to_parquet(part, compression="zstd", index=False)
    part.replace(file)


def import_cells(store: CellStore, file: Path) -> set[str]:
    """Take over cells that were run elsewhere; returns their ids."""
    if not file.is_file():
        return set()
    table = pd.read_parquet(file)
    # Files of the first formats do not say which.
    table = table[table["format"] == FORMAT] if "format" in table.columns else table.head(0)
    for name, ranks, numbers in zip(table["cell"], table["ranks"], table["numbers"], strict=True):
        if name not in store:
            store.put(CellResult(name, np.frombuffer(ranks, np.uint8), json.loads(numbers)))
    return set(table["cell"])
