"""Cells run side by side, whoever asks for them: a script's top level, a program, a notebook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from prune_lib.errors import PruneError
from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.cells import Cell, CellStore
from prune_lib.evaluation.worker import Job, run_cells

ROOT = Path(__file__).resolve().parents[2]

SCRIPT = """
import sys
from pathlib import Path

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.cells import Cell, CellStore
from prune_lib.evaluation.worker import Job, run_cells

folder = Path(sys.argv[1])
with (folder / "begun").open("a") as file:
    file.write("once\\n")
cases = Cases.load(folder / "cases.npz").digest()
cell = Cell(f"d/{cases}", "s", "markov", "positions", 0, 0)
jobs = [Job(cell, folder, folder, None, "markov", 1.0)]
run_cells(jobs, CellStore(folder / "cells"), processes=1, device="cpu")
main = sys.modules["__main__"]
print(main.__file__ == __file__, main.__spec__ is __spec__)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A split and a subset in one: three sessions to count, two to test on."""
    sessions = [[0, 1, 2], [0, 1], [1, 2]]
    (tmp_path / "sessions").mkdir()
    pd.DataFrame({"place": range(3), "items": sessions}).to_parquet(tmp_path / "sessions" / "part-0.parquet")
    for name in ("popularity", "item_sessions"):
        np.save(tmp_path / f"{name}.npy", np.array([2, 3, 2]))
    (tmp_path / "subset.json").write_text(json.dumps({"hash": "s"}))
    Cases.from_sessions([[0, 1], [1, 2, 0]]).save(tmp_path / "cases.npz")
    return tmp_path


@pytest.mark.parametrize("changed", [{"hash": "t"}, {"max_length": 5}])
def test_files_that_were_replaced_are_told_as_such(folder: Path, changed: dict[str, Any]) -> None:
    """The same sessions may be cut to another length by an evaluation at work beside."""
    (folder / "subset.json").write_text(json.dumps({"hash": "s", "max_length": 50, **changed}))
    cases = Cases.load(folder / "cases.npz").digest()
    cell = Cell(f"d/{cases}", "s", "markov", "positions", 0, 0, recipe={"max_length": 50})
    store = CellStore(folder / "cells")
    with pytest.raises(PruneError, match="another evaluation of the same data"):
        run_cells([Job(cell, folder, folder, None, "markov", 1.0)], store, processes=1, device="cpu")
    assert cell.id not in store


@pytest.mark.parametrize("way", ["file", "module"])
def test_a_script_without_a_guard_is_executed_once(folder: Path, way: str) -> None:
    (folder / "ask.py").write_text(SCRIPT)
    asked = ["ask.py"] if way == "file" else ["-m", "ask"]
    run = subprocess.run(
        [sys.executable, *asked, str(folder)],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    assert (folder / "begun").read_text() == "once\n"
    # The script finds itself as it was.
    assert run.stdout.split() == ["True", "True"]
    store = CellStore(folder / "cells")
    (done,) = store.names()
    # 0 -> 1 and 1 -> 2 are seen twice, and nothing after 2.
    assert store.get(done).ranks.tolist() == [1, 1, 3]
