"""The report's charts: valid Vega-Lite, and the numbers in them are those of the facts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from prune_lib.report.charts.budget import CHOSEN, coverage
from prune_lib.report.charts.flow import flow
from prune_lib.report.charts.items import popularity_groups
from prune_lib.report.charts.parts import Spec
from prune_lib.report.page import MapPoints
from prune_lib.report.themes import THEMES
from tests.core.reports import ROLE, made_facts, made_points, made_sections

CHARTS = {figure.id: figure.spec for s in made_sections(made_facts()) for figure in s.figures}


def coloured(value: Any, theme: str) -> Any:
    """As the page's script does it."""
    if isinstance(value, str):
        return THEMES[theme].get(value, value)
    if isinstance(value, list):
        return [coloured(v, theme) for v in value]
    if isinstance(value, dict):
        return {k: v if k in ("data", "datasets") else coloured(v, theme) for k, v in value.items()}
    return value


def rows_of(spec: Spec) -> list[list[dict[str, Any]]]:
    return list(spec["datasets"].values())


@pytest.mark.parametrize("name", sorted(CHARTS))
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_chart_compiles_and_has_no_role_left(name: str, theme: str) -> None:
    spec = coloured(CHARTS[name], theme)
    vega = vl_convert.vegalite_to_vega(spec)
    assert vega["marks"]
    without_data = {k: v for k, v in spec.items() if k not in ("data", "datasets")}
    assert '"@' not in json.dumps(without_data), "a role without a colour in this theme"


def test_the_map_compiles_in_every_colouring() -> None:
    packed = made_points().packed()
    for name, encoding in packed["colourings"].items():
        spec = json.loads(json.dumps(packed["spec"]))
        spec["encoding"]["color"] = encoding
        spec["data"] = {"values": [{"x": 0, "y": 1, "kept": "kept", "difficulty": 0.5, "reason": "COVERED"}]}
        assert vl_convert.vegalite_to_vega(coloured(spec, "dark"))["marks"], name


def test_themes_have_the_same_roles() -> None:
    assert THEMES["light"].keys() == THEMES["dark"].keys()


def test_data_that_look_like_a_role_stay_data() -> None:
    spec = CHARTS["neighbours"]
    assert any(row.get("label") == ROLE for rows in rows_of(coloured(spec, "light")) for row in rows)


def test_the_flow_carries_every_session_and_no_label_hides_another() -> None:
    facts = made_facts()
    spec = flow(facts.reasons, "sessions")
    bars = next(rows for rows in rows_of(spec) if "label" in rows[0])
    heights = {row["name"]: row["y2"] - row["y"] for row in bars}
    leaves = [row for row in bars if row["x"] == max(r["x"] for r in bars)]
    assert sum(row["sessions"] for row in leaves) == 1_000 == bars[0]["sessions"]
    assert sum(heights[row["name"]] for row in leaves) == pytest.approx(heights["all sessions"])
    assert heights["kept"] == pytest.approx(0.12 * heights["all sessions"])
    labels = sorted(row["label_y"] for row in leaves)
    assert min(np.diff(labels)) >= 0.06 - 1e-9 and len(leaves) == 6


def test_items_of_like_popularity_are_summed_up() -> None:
    items = pd.DataFrame({"sessions_before": [1, 1, 100, 0], "sessions_after": [0, 1, 25, 0]})
    groups = popularity_groups(items).to_dict("records")
    assert [g["items"] for g in groups] == [2, 1], "an item without sessions has no popularity"
    assert [g["share"] for g in groups] == [0.5, 0.25] and [g["lost"] for g in groups] == [0.5, 0.0]
    assert groups[1]["popularity"] == 100


def test_coverage_ends_at_what_was_kept() -> None:
    facts = made_facts()
    spec = coverage(facts.curve, facts.items, 5_000)
    rows = next(rows for rows in rows_of(spec) if "what" in rows[0])
    last = {row["what"]: row for row in rows}
    assert {name: row["value"] for name, row in last.items()} == pytest.approx(
        {"cold items": 24 / 30, "mid items": 1.0, "popular items": 1.0, "objective": 0.75}
    )
    assert all(row["kept"] == 0.1 for row in last.values())
    assert [p["name"] for p in spec["params"]] == [CHOSEN]
    without = facts.curve.assign(objective=np.nan)
    assert "objective" not in json.dumps(coverage(without, facts.items, 5_000)["layer"])


def test_no_points_of_a_map_is_no_error() -> None:
    points: MapPoints = made_points()
    assert len(points.fitting(10).x) == 0
