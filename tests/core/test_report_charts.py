"""The report's charts: valid Vega-Lite, and the numbers in them are those of the facts."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert

from prune_lib.report.charts.budget import CHOSEN, coverage
from prune_lib.report.charts.experts import kept_by_difficulty
from prune_lib.report.charts.flow import REASON_COLOURS, flow
from prune_lib.report.charts.items import long_tail, popularity_groups
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


def light(colour: str) -> float:
    """WCAG's relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", THEMES)
def test_whatever_is_drawn_can_be_told_from_the_paper(theme: str) -> None:
    """WCAG 2: 3 to 1 for graphics, 4.5 to 1 for words; lines of the grid are decoration."""
    paper = light(THEMES[theme]["@paper"]) + 0.05
    low = {}
    for role, colour in THEMES[theme].items():
        if role in ("@paper", "@line", "@ramp"):
            continue
        own = light(colour) + 0.05
        if max(own, paper) / min(own, paper) < (4.5 if role in ("@ink", "@muted") else 3.0):
            low[role] = colour
    assert not low


@pytest.mark.parametrize("theme", THEMES)
def test_reasons_and_clusters_have_colours_of_their_own(theme: str) -> None:
    # What a baseline chose is never in one picture with a new pattern, and both are blue.
    reasons = [role for reason, role in REASON_COLOURS.items() if reason != "METHOD"]
    for own in (reasons, [role for role in THEMES[theme] if role.startswith("@cluster")]):
        assert len({THEMES[theme][role] for role in own}) == len(own)


def test_a_short_range_of_difficulties_is_drawn_in_twentieths() -> None:
    shares = pd.DataFrame({"twentieth": [0, 3], "sessions": 10, "kept": [1, 2], "disagreement": 0.5})
    (rows,) = rows_of(kept_by_difficulty(shares, "sessions"))
    assert [(row["low"], row["high"]) for row in rows] == [(0.0, 0.05), (0.15, 0.2)]


@pytest.mark.parametrize(
    ("bands", "lines"),
    [
        (["popular", "mid", "cold", "cold"], {"mid ▸": 1.5, "cold ▸": 2.5}),
        (["popular", "cold"], {"cold ▸": 1.5}),
        (["mid", "cold"], {"cold ▸": 1.5}),
        (["popular"], {}),
        (["cold", "cold"], {}),
    ],
)
def test_bands_begin_where_their_items_do(bands: list[str], lines: dict[str, float]) -> None:
    items = pd.DataFrame({"band": bands, "sessions_before": range(len(bands), 0, -1), "sessions_after": 1})
    spec = long_tail(items, "sessions")
    assert {row["label"]: row["rank"] for rows in rows_of(spec) for row in rows if "label" in row} == lines
    assert vl_convert.vegalite_to_vega(coloured(spec, "light"))["marks"]


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
