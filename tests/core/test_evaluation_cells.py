"""Cells: names that say what decides, results that survive, plans that share."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prune_lib.evaluation import cells
from prune_lib.evaluation.cells import Cell, CellResult, CellStore, export_cells, import_cells
from prune_lib.evaluation.files import Split, Subset, budget_of, mark_used, remove_unused
from prune_lib.evaluation.plan import Candidate, Plan, candidates, chosen, for_a_tenth
from prune_lib.evaluation.settings import EvaluateSettings

CELL = Cell("data", "subset", "gru4rec", "positions", 100, 0, {"dim": 8})


@pytest.mark.parametrize(
    "changed",
    [
        {"data": "x"},
        {"subset": "x"},
        {"target": "narm"},
        {"samples": "last"},
        {"steps": 1},
        {"seed": 1},
        {"recipe": {"dim": 9}},
    ],
)
def test_all_that_decides_is_in_the_name(changed):
    assert replace(CELL, **changed).id != CELL.id


def test_the_name_is_the_same_on_every_machine():
    assert CELL.id == "fc632f6e4e386e0c"
    assert replace(CELL, recipe={"dim": 8}).id == CELL.id


def test_a_result_comes_back_as_it_was(tmp_path):
    store = CellStore(tmp_path)
    assert CELL.id not in store
    with pytest.raises(KeyError):
        store.get(CELL.id)
    ranks = np.array([1, 20, 21, 7], np.uint8)
    store.put(CellResult(CELL.id, ranks, {"train_seconds": 1.5}))
    again = CellStore(tmp_path).get(CELL.id)
    assert again.ranks.tolist() == ranks.tolist()
    assert again.numbers == {"train_seconds": 1.5}
    other = replace(CELL, seed=1)
    assert store.missing([CELL, other, other]) == [other]


def test_a_half_written_result_is_none(tmp_path):
    """A process killed while it writes leaves a file of another name."""
    (tmp_path / f".{CELL.id}.123").write_bytes(b"half")
    assert CELL.id not in CellStore(tmp_path)


def test_both_lengths_are_chosen_at_one_learning_rate():
    slow = [Candidate(1e-3, p) for p in (4, 8)]
    fast = [Candidate(5e-3, p) for p in (4, 8)]
    tenth = for_a_tenth([*slow, *fast])
    assert {c.passes for c in tenth} == {1, 2, 4, 8}
    on_all = dict(zip([*slow, *fast], (0.40, 0.45, 0.44, 0.50), strict=True))
    on_tenth = dict.fromkeys(tenth, 0.10) | {Candidate(5e-3, 2): 0.30, fast[0]: 0.29, fast[1]: 0.20}
    how = chosen(on_all, on_tenth)
    assert (how.learning_rate, how.passes) == (5e-3, 4)
    assert (how.longest, how.shortest) == (8, 2)
    assert how.passes_at(1.0) == 8
    assert how.passes_at(0.1) == pytest.approx(2)
    assert how.passes_at(0.1**0.5) == pytest.approx(4)
    assert how.passes_at(0.01) == pytest.approx(0.5)


def test_what_is_given_is_not_chosen():
    given = EvaluateSettings(fit={"steps": 50, "learning_rate": 0.01})
    assert candidates(given) == [Candidate(0.01, 0.0, steps=50)]
    assert for_a_tenth(candidates(given)) == candidates(given)


def subset(folder: Path, name: str, sessions: int) -> Subset:
    """Sessions of four items each in a feed of batches of 16 padded positions: 4 sessions a batch."""
    place = folder / name / "feed/fold=0/part=train/bucket=5/chunk=0"
    place.mkdir(parents=True)
    items = [[0, 1, 2, 3, 4]] * sessions
    pq.write_table(pa.table({"items": pa.array(items, pa.list_(pa.int32()))}), place / "part-0.parquet")
    return Subset(folder / name, sessions, 5 * sessions, 5, 4 * sessions, name)


def test_steps_follow_the_regime_and_equal_cells_are_run_once(tmp_path):
    settings = EvaluateSettings(fit={"batch_size": 16})
    split = Split(tmp_path, "test", True, 100, 5, 500, 10, 20, 0, 0, "d", "c")
    full, small = subset(tmp_path, "all", 80), subset(tmp_path, "small", 8)
    plan = Plan(settings, split, full)
    how = Candidate(1e-3, 4, longest=8, shortest=2)

    def add(of: Subset, regime: str, ratio: float, target: str = "gru4rec", **more: object):
        return plan.add(of, target, method="graph", ratio=ratio, seed=0, regime=regime, candidate=how, **more)

    assert [add(small, r, 0.1).steps for r in ("steps", "epochs", "tuned")] == [80, 8, 40]
    assert [add(full, r, 1.0).steps for r in ("steps", "epochs", "tuned")] == [80, 80, 160]
    assert len(plan.rows) == 6
    assert len(plan.jobs) == 5  # all the data takes as many steps as passes say
    knn = [add(small, r, 0.1, "session-knn").cell for r in ("steps", "epochs")]
    assert knn[0] == knn[1]
    # A batch of single samples learns as many targets as one of four sessions does.
    last = add(small, "steps", 0.1, samples="last")
    assert plan.jobs[last.cell].rows == 16


def test_a_budget_is_counted_as_pruning_counts_it():
    assert budget_of(0.07, 100) == 7
    assert budget_of(0.3, 906_140) == 271_842


def test_cells_travel_beside_the_document(tmp_path):
    here, there = CellStore(tmp_path / "here"), CellStore(tmp_path / "there")
    other = replace(CELL, seed=1)
    for cell in (CELL, other):
        here.put(CellResult(cell.id, np.array([3, 255], np.uint8), {"steps": 5}))
    file = tmp_path / "report" / "cells" / "shop.parquet"
    export_cells(here, [CELL.id], file)
    export_cells(here, [other.id], file)  # what was there stays
    assert len(pd.read_parquet(file)) == 2
    import_cells(there, file)
    assert there.get(other.id).ranks.tolist() == [3, 21]
    assert there.get(CELL.id).numbers == {"steps": 5}


def test_cells_of_another_format_are_not_taken(tmp_path, monkeypatch):
    store, file = CellStore(tmp_path / "here"), tmp_path / "cells.parquet"
    store.put(CellResult("a", np.array([3], np.uint8), {}))
    monkeypatch.setattr(cells, "FORMAT", cells.FORMAT - 1)
    export_cells(store, ["a"], file)
    monkeypatch.undo()
    there = CellStore(tmp_path / "there")
    assert import_cells(there, file) == set() and there.names() == set()
    pd.read_parquet(file).drop(columns="format").to_parquet(file)
    assert import_cells(there, file) == set()
    export_cells(store, ["a"], file)
    assert import_cells(there, file) == there.names() == {"a"}


def test_other_settings_are_another_recipe_and_other_seeds_are_not(tmp_path):
    split = Split(tmp_path, "test", True, 100, 5, 500, 10, 20, 0, 0, "d", "c")
    small = subset(tmp_path, "small", 8)

    def recipe(method: str = "graph", seed: int = 0, passes: float = 4, **settings: object) -> str:
        plan = Plan(EvaluateSettings(fit={"batch_size": 16}, **settings), split, small)
        how = Candidate(1e-3, passes)
        row = plan.add(small, "gru4rec", method=method, ratio=0.1, seed=seed, regime="steps", candidate=how)
        return row.recipe

    assert recipe() == recipe(seed=3) == recipe(name="other", seeds=9)
    elsewhere = {"device": "cpu", "processes": 4, "threads": 2}
    assert recipe() == recipe(training=elsewhere) == recipe(propagation={"engine": "arrays"})
    others = [
        recipe(passes=8),
        recipe(sampling={"kappa": 0.0}),
        recipe(training={"epochs": 2}),
        recipe(suspects={"bots": "alike"}),
    ]
    assert len({recipe(), *others}) == 5
    assert recipe("random") == recipe("random", suspects={"bots": "alike"})
    # All the data are pruned by nobody.
    assert recipe("all") == recipe("all", sampling={"kappa": 0.0}) != recipe("all", passes=8)


def test_who_chose_does_not_change_how_a_target_is_trained(tmp_path):
    split = Split(tmp_path, "test", True, 100, 5, 500, 10, 20, 0, 0, "d", "c")
    small = subset(tmp_path, "small", 8)

    def training(method: str = "graph", passes: float = 4, regime: str = "steps", **fit: object) -> str:
        plan = Plan(EvaluateSettings(fit={"batch_size": 16, **fit}), split, small)
        how = Candidate(1e-3, passes)
        row = plan.add(small, "gru4rec", method=method, ratio=0.1, seed=0, regime=regime, candidate=how)
        return row.training

    assert training() == training("all") == training("random")
    assert len({training(), training(passes=8), training(dim=8)}) == 3
    assert training(regime="tuning") == training(regime="tuning", passes=8) == ""


def test_only_splits_that_nobody_uses_are_removed(tmp_path):
    names = ("test-a-a", "validation-a-a", "test-b-b", "test-c-c", "validation-c-c", "cells")
    folders = {name: tmp_path / name for name in names}
    long_ago = time.time() - 20 * 24 * 3600
    for name, folder in folders.items():
        folder.mkdir()
        if name == "validation-c-c":
            mark_used(folder)
        else:
            os.utime(folder, (long_ago, long_ago))
    mark_used(folders["test-b-b"])
    remove_unused(tmp_path, [folders["test-a-a"], folders["validation-a-a"]])
    assert {folder.name for folder in tmp_path.iterdir()} == set(names) - {"test-c-c"}


def test_rows_of_a_method_that_prunes_once_a_ratio_are_no_seeds_of_its_former_cuts(tmp_path):
    split = Split(tmp_path, "test", True, 100, 5, 500, 10, 20, 0, 0, "d", "c")
    few, many = subset(tmp_path, "few", 8), subset(tmp_path, "many", 9)
    plan = Plan(EvaluateSettings(fit={"batch_size": 16}), split, many)

    def added(method, of):
        return plan.add(of, "markov", method=method, ratio=0.1, seed=0, regime="steps")

    assert added("ccs", few).recipe == added("d2", few).recipe != added("dual", few).recipe
    # Other sessions are another training, and equal ones the same, whoever chose them.
    assert added("dual", few).cell == added("ccs", few).cell != added("dual", many).cell
