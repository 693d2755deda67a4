"""What is left of earlier evaluations, and what two machines have found together."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pandas as pd

from prune_lib.evaluation.former import IDENTITY, joined, measured, merged
from prune_lib.evaluation.results import KEYS

START = datetime(2026, 3, 1, tzinfo=timezone.utc)
KEY = {
    "method": "graph",
    "variant": "",
    "ratio": 0.1,
    "regime": "steps",
    "samples": "positions",
    "target": "x",
}


def rows(run: str, value: float, *, hash: str = "1", data_set: str = "shop", **key: Any) -> pd.DataFrame:
    """Values of a run, a row a seed."""
    seeds = key.pop("seeds", (0,))
    some = {**KEY, **key, "data_set": data_set, "split": key.get("split", "test"), "data_hash": hash}
    more = {"band": "all", "metric": "recall@20", "recipe": "r", "training": "t", "run_id": run}
    return pd.DataFrame([{**some, **more, "value": value, "seed": seed} for seed in seeds])


class Place:
    """Tables to which runs add, one after the other, as an evaluation does it."""

    def __init__(self, other: Place | None = None) -> None:
        self.tables: dict[str, pd.DataFrame] = dict(other.tables) if other else {}

    def ran(self, hour: int, new: pd.DataFrame) -> Place:
        """A run that ends in that hour; its summary is of the split of its first row."""
        first = new.iloc[0]
        values = merged(self.tables.get("values"), new, IDENTITY)
        here = values[(values["data_set"] == first["data_set"]) & (values["split"] == first["split"])]
        keys = ["data_set", "split", "data_hash", *KEYS, "band", "metric"]
        means = here.groupby(keys, as_index=False).agg(mean=("value", "mean"), seeds=("seed", "count"))
        run = {name: first[name] for name in ("data_set", "split", "run_id")}
        record = pd.DataFrame([{**run, "data_hash": "", "finished_at": START + timedelta(hours=hour)}])
        self.tables = {
            "values": values,
            "summary": merged(self.tables.get("summary"), means, ["data_set", "split"]),
            "runs": merged(self.tables.get("runs"), record, ["data_set", "split", "run_id"]),
        }
        return self


def found(tables: Any) -> dict[tuple[str, str, int], float]:
    """Values by data set, target and seed."""
    frame = tables["values"]
    return {
        (row.data_set, row.target, row.seed): row.value for row in frame.itertuples() if row.split == "test"
    }


def told(tables: Any, kind: str, name: str) -> set[str]:
    return set(tables[kind][name])


def test_what_another_machine_added_beside_the_document_joins_the_tables() -> None:
    both = Place().ran(1, rows("a", 0.1, seeds=(0, 1)))
    here = Place(both).ran(2, rows("b", 0.2, target="y")).ran(5, rows("c", 0.3, data_set="other"))
    there = Place(both).ran(3, rows("d", 0.4, target="z")).ran(4, rows("a", 0.5))
    here.tables["runs"] = here.tables["runs"].assign(  # a table's times come without a zone
        finished_at=[when.replace(tzinfo=None) for when in here.tables["runs"]["finished_at"]]
    )
    tables = joined(here.tables, there.tables)
    assert found(tables) == {
        ("shop", "x", 0): 0.5,  # of the run that both have the younger
        ("shop", "y", 0): 0.2,
        ("shop", "z", 0): 0.4,
        ("shop", "x", 1): 0.1,
        ("other", "x", 0): 0.3,
    }
    assert told(tables, "runs", "run_id") == {"a", "b", "c", "d"}
    assert told(tables, "summary", "target") == {"x", "y", "z"}
    assert told(tables, "summary", "data_set") == {"shop", "other"}


def test_other_data_replace_the_former_wherever_they_were_measured() -> None:
    both = Place().ran(1, rows("a", 0.1))
    here, there = Place(both).ran(2, rows("b", 0.2, target="y")), Place(both).ran(3, rows("a", 0.3, hash="2"))
    for tables in (joined(here.tables, there.tables), joined(there.tables, here.tables)):
        assert found(tables) == {("shop", "x", 0): 0.3}
        assert told(tables, "runs", "run_id") == {"a"} and told(tables, "summary", "data_hash") == {"2"}


def test_a_place_that_has_all_runs_of_the_other_is_taken_as_it_is() -> None:
    here = Place().ran(1, rows("a", 0.1)).ran(2, rows("b", 0.2, target="y"))
    there = Place(here)
    # A row was taken out by hand.
    here.tables["values"] = here.tables["values"].head(1)
    assert found(joined(here.tables, there.tables)) == {("shop", "x", 0): 0.1}
    there.ran(3, rows("c", 0.3, target="z"))
    assert joined(here.tables, there.tables)["values"] is there.tables["values"]
    nothing = dict.fromkeys(here.tables)
    assert joined(nothing, there.tables)["values"] is there.tables["values"]
    assert joined(here.tables, nothing)["values"] is here.tables["values"]
    assert joined(nothing, nothing) == nothing


def test_a_summary_goes_with_the_values_that_it_was_made_of() -> None:
    """Choosing on the validation split of other data replaces what was measured on the former one."""
    place = Place().ran(1, rows("a", 0.1, split="validation"))
    tuning = rows("b", 0.3, split="validation", hash="2", regime="tuning", variant="lr=0.1")
    place.ran(2, pd.concat([rows("b", 0.2), tuning], ignore_index=True))
    values, summary = place.tables["values"], place.tables["summary"]
    assert set(values["data_hash"]) == {"1", "2"} and set(summary["split"]) == {"test", "validation"}
    left = measured(summary, values)
    assert left[["split", "mean"]].values.tolist() == [["test", 0.2]]
    # What was chosen once more on the same data takes nothing away.
    same = (
        Place()
        .ran(1, rows("a", 0.1, split="validation"))
        .ran(2, pd.concat([rows("b", 0.2), tuning.assign(data_hash="1")]))
    )
    assert len(measured(same.tables["summary"], same.tables["values"])) == 2
