"""From ranks to tables: values by band, means over seeds, differences on the same test sessions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from prune_lib.evaluation.cases import Cases
from prune_lib.evaluation.cells import CellResult, CellStore
from prune_lib.evaluation.files import Subset
from prune_lib.evaluation.plan import Row
from prune_lib.evaluation.results import KEYS, band_masks, metric_rows, summarise

N_ITEMS = 40
#: Sessions that hold each item: a head of 5, a middle, a tail of items in one session.
POPULARITY = np.array([60] * 5 + [12] * 15 + [1] * 20, dtype=np.int64)
NUMBERS = {"coverage": 0.5, "mean_popularity": 0.7, "gini": 0.6, "train_seconds": 2.0, "rank_seconds": 1.0}


@pytest.fixture(scope="module")
def cases() -> Cases:
    rng = np.random.default_rng(0)
    return Cases.from_sessions([rng.integers(0, N_ITEMS, rng.integers(2, 8)) for _ in range(150)])


def row(method: str, ratio: float, seed: int, cell: str, regime: str = "steps") -> Row:
    subset = Subset(Path("nowhere"), 10, 40, 20, 30, "h")
    return Row(
        method, "", ratio, regime, "positions", "gru4rec", seed, cell, "r", "t", subset, 100, 0.01, 5.0
    )


def trainings(rows: list[Row]) -> pd.DataFrame:
    """What the summary is made of, as the table of values has it."""
    return pd.DataFrame([{name: getattr(one, name) for name in (*KEYS, "seed", "cell")} for one in rows])


def test_bands_part_the_cases_by_their_targets_popularity(cases: Cases) -> None:
    masks = band_masks(cases, POPULARITY)
    assert masks["all"].all()
    np.testing.assert_array_equal(
        masks["cold"].astype(int) + masks["mid"].astype(int) + masks["popular"].astype(int), 1
    )
    sessions = POPULARITY[cases.targets]
    assert sessions[masks["cold"]].max() < sessions[masks["mid"]].min()
    assert sessions[masks["mid"]].max() < sessions[masks["popular"]].min()


def test_planted_ranks_come_out_as_planted_metrics(cases: Cases, tmp_path: Path) -> None:
    """Cold targets first, mid second, popular missed."""
    store, masks = CellStore(tmp_path), band_masks(cases, POPULARITY)
    ranks = np.where(masks["cold"], 1, np.where(masks["mid"], 2, 21)).astype(np.uint8)
    store.put(CellResult("a", ranks, NUMBERS))
    frame = metric_rows([row("graph", 0.1, 0, "a")], store, cases, POPULARITY, {"data_set": "x"})
    found = frame.set_index(["band", "metric"])["value"]
    assert found["cold", "mrr@20"] == 1.0
    assert found["mid", "mrr@20"] == 0.5
    assert found["popular", "recall@20"] == 0.0
    assert found["all", "recall@20"] == pytest.approx((masks["cold"] | masks["mid"]).mean())
    assert found["mid", "ndcg@20"] == pytest.approx(1 / np.log2(3))
    assert found["all", "coverage"] == 0.5
    assert frame.loc[frame["band"] == "cold", "n_cases"].unique().tolist() == [int(masks["cold"].sum())]
    assert (frame["data_set"] == "x").all()


def test_the_summary_pairs_methods_on_the_same_sessions(cases: Cases, tmp_path: Path) -> None:
    """Ours finds all that random finds and a fifth more: a difference without doubt, whatever the level."""
    store, rng = CellStore(tmp_path), np.random.default_rng(3)
    rows = []
    for seed in (0, 1):
        draw = rng.random(cases.n_cases)
        for method, ratio, share in (("all", 1.0, 0.8), ("graph", 0.1, 0.5), ("random", 0.1, 0.3)):
            cell = f"{method}{seed}"
            store.put(CellResult(cell, np.where(draw < share, 1, 255).astype(np.uint8), NUMBERS))
            rows.append(row(method, ratio, seed, cell))
            rows.append(row(method, ratio, seed, cell, "epochs"))
    table = summarise(trainings(rows), store, cases, POPULARITY, {"data_set": "x"})
    found = table.query("band == 'all' and metric == 'recall@20' and regime == 'steps'").set_index("method")
    ours, random, full = found.loc["graph"], found.loc["random"], found.loc["all"]
    assert ours["seeds"] == 2
    assert ours["low"] < ours["mean"] < ours["high"]
    assert ours["over_random"] == pytest.approx(ours["mean"] - random["mean"])
    assert 0 < ours["over_random_low"] < ours["over_random"] < ours["over_random_high"]
    # Paired: narrower than the two intervals side by side.
    assert ours["over_random_high"] - ours["over_random_low"] < ours["high"] - ours["low"]
    assert ours["share_of_all"] == pytest.approx(ours["mean"] / full["mean"])
    assert np.isnan(random["over_random"]) and np.isnan(full["share_of_all"])
    assert not np.isnan(random["share_of_all"])
    # The same cells under another regime: the same numbers.
    other = table.query("band == 'all' and metric == 'recall@20' and regime == 'epochs'").set_index("method")
    assert other.loc["graph", "over_random_low"] == ours["over_random_low"]


def test_an_ablation_is_held_against_the_method_as_it_is(cases: Cases, tmp_path: Path) -> None:
    store, rng, rows = CellStore(tmp_path), np.random.default_rng(7), []
    for seed in (0, 1):
        draw = rng.random(cases.n_cases)
        for variant, share in (("", 0.5), ("kappa=0", 0.3)):
            cell = f"{variant or 'ours'}{seed}"
            store.put(CellResult(cell, np.where(draw < share, 1, 255).astype(np.uint8), NUMBERS))
            rows.append(replace(row("graph", 0.1, seed, cell), variant=variant))
    table = summarise(trainings(rows), store, cases, POPULARITY, {})
    found = table.query("band == 'all' and metric == 'recall@20'").set_index("variant")
    less = found.loc["kappa=0"]
    assert less["over_ours"] == pytest.approx(less["mean"] - found.loc["", "mean"])
    assert less["over_ours_low"] < less["over_ours"] < less["over_ours_high"] < 0
    assert np.isnan(found.loc["", "over_ours"])
    # Of one seed only: it is beside that seed of the method, of random and of all the data.
    one = summarise(trainings(rows[:2] + rows[2:3]), store, cases, POPULARITY, {})
    alone = one.query("band == 'all' and metric == 'recall@20'").set_index("variant").loc["kappa=0"]
    first = summarise(trainings(rows[:2]), store, cases, POPULARITY, {})
    same = first.query("band == 'all' and metric == 'recall@20'").set_index("variant").loc["kappa=0"]
    assert alone["over_ours"] == same["over_ours"] != less["over_ours"]


def test_what_is_chosen_on_validation_has_no_summary(cases: Cases, tmp_path: Path) -> None:
    store = CellStore(tmp_path)
    store.put(CellResult("a", np.ones(cases.n_cases, np.uint8), NUMBERS))
    rows = [row("random", 0.1, 0, "a", "tuning"), row("random", 0.1, 0, "a")]
    assert set(summarise(trainings(rows), store, cases, POPULARITY, {})["regime"]) == {"steps"}
    assert set(metric_rows(rows, store, cases, POPULARITY, {})["regime"]) == {"steps", "tuning"}


def test_what_is_known_is_not_computed_again_and_what_changed_is(cases: Cases, tmp_path: Path) -> None:
    store, rng = CellStore(tmp_path), np.random.default_rng(5)
    rows = []
    for method, ratio in (("all", 1.0), ("graph", 0.1), ("random", 0.1)):
        store.put(CellResult(method, rng.integers(1, 22, cases.n_cases).astype(np.uint8), NUMBERS))
        rows.append(row(method, ratio, 0, method))
    common = {"data_set": "x"}
    former = summarise(trainings(rows), store, cases, POPULARITY, common)
    planted = former.assign(mean=-1.0)
    again = summarise(trainings(rows), store, cases, POPULARITY, common, planted)
    assert (again["mean"] == -1.0).all()
    pd.testing.assert_frame_equal(again.assign(mean=0.0), former.assign(mean=0.0), check_like=True)
    # Another seed of random: ours has none that it could be held against; another training: it has.
    store.put(CellResult("more", rng.integers(1, 22, cases.n_cases).astype(np.uint8), NUMBERS))
    rows.append(row("random", 0.1, 1, "more"))
    found = summarise(trainings(rows), store, cases, POPULARITY, common, planted).groupby("method")
    assert (found.get_group("all")["mean"] == -1.0).all()
    assert (found.get_group("graph")["mean"] == -1.0).all()
    assert (found.get_group("random")["seeds"] == 2).all()
    rows[2] = row("random", 0.1, 0, "more")
    found = summarise(trainings(rows[:3]), store, cases, POPULARITY, common, planted).groupby("method")
    assert (found.get_group("graph")["mean"] >= 0.0).all()


def test_prefixes_that_were_chosen_are_beside_their_like(cases: Cases, tmp_path: Path) -> None:
    """Beside prefixes at random, and those of whole sessions; not beside the last positions of sessions."""
    store = CellStore(tmp_path)
    finds = {"all prefixes": 0.8, "graph prefixes": 0.6, "random unit": 0.4, "graph unit": 0.5}
    # What it was held against: sessions, of which the last position only is learned.
    finds |= {"all last": 0.3, "graph last": 0.2, "random last": 0.1}
    rows, draw = [], np.random.default_rng(11).random(cases.n_cases)
    for name, share in finds.items():
        method, what = name.split()
        store.put(CellResult(name, np.where(draw < share, 1, 255).astype(np.uint8), NUMBERS))
        made = row(method, 1.0 if method == "all" else 0.1, 0, name)
        of = {"samples": "last", "variant": "unit=prefix"} if what == "unit" else {"samples": what}
        rows.append(replace(made, **of))
    table = summarise(trainings(rows), store, cases, POPULARITY, {})
    found = table.query("band == 'all' and metric == 'recall@20'").set_index(["method", "variant", "samples"])
    mean = found["mean"]
    ours = found.loc["graph", "unit=prefix", "last"]
    assert ours["over_random"] == pytest.approx(ours["mean"] - mean["random", "unit=prefix", "last"])
    assert ours["over_ours"] == pytest.approx(ours["mean"] - mean["graph", "", "prefixes"])
    assert ours["share_of_all"] == pytest.approx(ours["mean"] / mean["all", "", "prefixes"])
    random = found.loc["random", "unit=prefix", "last"]
    assert random["share_of_all"] == pytest.approx(random["mean"] / mean["all", "", "prefixes"])
    last = found.loc["graph", "", "last"]
    assert last["over_random"] == pytest.approx(last["mean"] - mean["random", "", "last"])
    # Where whole sessions were not tried so, there is nothing to compare.
    alone = summarise(trainings([r for r in rows if r.samples != "prefixes"]), store, cases, POPULARITY, {})
    left = alone.query("variant == 'unit=prefix' and method == 'graph'")
    assert "over_ours" not in left or left["over_ours"].isna().all()
    assert left["share_of_all"].isna().all() and left["over_random"].notna().any()
