"""The report's page as text: whole, of one piece, and no id in it is anything but text."""

from __future__ import annotations

import base64
import gzip
import json
import re
from dataclasses import replace
from datetime import datetime, timezone
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from prune_lib.report.facts import Facts
from prune_lib.report.sections.experts import difficulty
from prune_lib.report.sections.kept import budgets, what_was_kept
from tests.core.reports import HOSTILE, KEPT, made_facts, made_page, made_points, made_sections


class Parsed(HTMLParser):
    """Elements and texts of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def page() -> str:
    return made_page()


@pytest.fixture(scope="module")
def parsed(page: str) -> Parsed:
    return Parsed(page)


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found.group(1))
    return data


def test_hostile_ids_are_text(parsed: Parsed, page: str) -> None:
    assert len(parsed.all("script")) == 3, "the data, Vega, and our own"
    assert any(HOSTILE in text for text in parsed.texts), "and they are shown as they are"
    assert "document.title='taken'</script>" not in page
    title = page[page.index("<title>") : page.index("</title>")]
    assert "&lt;script&gt;" in title


def test_every_id_is_there_once_and_every_definition_has_its_term(parsed: Parsed) -> None:
    ids = [str(attrs["id"]) for _, attrs in parsed.tags if attrs.get("id")]
    assert len(ids) == len(set(ids))
    described = [str(attrs["aria-describedby"]) for _, attrs in parsed.tags if attrs.get("aria-describedby")]
    definitions = [attrs["id"] for _, attrs in parsed.tags if attrs.get("role") == "tooltip"]
    assert described == definitions and len(described) > 40
    for attrs in parsed.all("a"):
        assert str(attrs["href"]).removeprefix("#") in ids
    charts = {str(attrs["data-chart"]) for _, attrs in parsed.tags if attrs.get("data-chart")}
    labels = [attrs["for"] for attrs in parsed.all("label") if attrs.get("for")]
    assert set(labels) <= set(ids) and {f"chart-{name}" for name in charts} <= set(ids)


def test_every_chart_has_its_place_and_says_what_it_shows(page: str, parsed: Parsed) -> None:
    charts = data_of(page)["charts"]
    places = {attrs["data-chart"] for _, attrs in parsed.tags if attrs.get("data-chart")}
    assert set(charts) == places and len(charts) >= 13
    assert all(len(spec["description"]) > 20 for spec in charts.values())


def test_nothing_is_fetched(parsed: Parsed) -> None:
    fetching = [attrs for _, attrs in parsed.tags if attrs.get("src") or attrs.get("action")]
    assert not fetching and not parsed.all("link")
    policy = next(
        a["content"] for a in parsed.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert str(policy).startswith("default-src 'none'")


def test_the_same_facts_give_the_same_page(page: str) -> None:
    assert made_page() == page


def test_the_map_is_packed_and_can_be_unpacked(page: str) -> None:
    packed = data_of(page)["map"]
    columns = json.loads(gzip.decompress(base64.b64decode(packed["points"])))
    assert columns["session"][0] == HOSTILE[:39] + "…" and len(columns["x"]) == 80
    assert columns["x"][-1] == 1000 and columns["difficulty"][0] is None
    assert [packed["reasons"][r] for r in columns["reason"][:2]] == ["NEW_PATTERN", "COVERED"]
    assert columns["rank"][:2] == [1, None]
    assert set(packed["colourings"]) == {"difficulty", "cluster", "reason", "kept or not"}


def test_the_map_leaves_points_out_where_the_page_would_be_too_large() -> None:
    n, most = 4_000, 100_000
    random = np.random.default_rng(1)
    points = replace(
        made_points(n),
        x=random.random(n).astype(np.float32),
        y=random.random(n).astype(np.float32),
        session=[f"{value:040x}" for value in random.integers(0, 2**62, n)],
        clicks=[[f"{v:016x}" for v in row] for row in random.integers(0, 2**62, (n, 9))],
    )
    fitting = points.fitting(most)
    assert 500 < len(fitting.x) < n and 0.7 * most < len(fitting.packed()["points"]) <= most
    assert fitting.session == points.session[: len(fitting.x)]


def test_the_first_words_say_what_was_kept() -> None:
    section = what_was_kept(made_facts())
    assert "kept 120 of 1,000 sessions" in section.lead[0] and "10 % of the interactions" in section.lead[0]
    assert section.lead[-1].startswith("Warning: strange")
    values = {number.label: number.value for number in section.numbers}
    assert values["sessions kept"] == "120" and values["duplicates removed"] == "29"
    assert all(len(number.definition) > 10 for number in section.numbers)


def test_the_window_is_told_and_the_pages_sql_is_of_its_run() -> None:
    facts = made_facts()
    windowed = {**facts.run, "since": datetime(2026, 5, 9, 6, tzinfo=timezone.utc)}
    lead = what_was_kept(made_facts(run=windowed)).lead[0]
    assert f"of {facts.run['input']}, sessions since 2026-05-09 06:00:00 UTC, the graph method" in lead
    assert "VERSION" not in budgets(facts).data["sql"]
    assert (
        budgets(made_facts(versions={"pruned": 4}))
        .data["sql"]
        .endswith(" VERSION AS OF 4 WHERE prune_rank <= ")
    )


def test_floors_are_said_to_come_first() -> None:
    rounds = [
        {"phase": "floor", "picked": 30},
        {"phase": "redundant", "picked": -4},
        {"phase": "coverage", "picked": 9},
    ]
    (lead,) = budgets(made_facts(run={**made_facts().run, "rounds": rounds})).lead
    assert "Floors come first: below rank 26 some are not met" in lead
    assert "Floors" not in budgets(made_facts()).lead[0]


def captions(facts: Facts) -> str:
    return " ".join(figure.caption for section in made_sections(facts) for figure in section.figures)


def test_what_charts_tell_of_our_method_is_told_of_it_alone() -> None:
    facts = made_facts()
    told = ("what looks like noise comes last", "Cold items come late", "very long ones are rarely worth")
    assert all(words in captions(facts) for words in told)
    others = [{**facts.run, "method": method} for method in ("random", "recent")]
    alike = {**facts.settings, "suspects": {"bots": "last", "noise": "alike"}}
    for other in (*(made_facts(run=run) for run in others), made_facts(settings=alike)):
        assert not any(words in captions(other) for words in told)
    floored = captions(made_facts(settings={**facts.settings, "floor": 1}))
    assert told[0] in floored and told[1] not in floored
    of_samples = captions(made_facts(samples=True))
    assert told[1] in of_samples and told[2] not in of_samples, "a sample costs as much as any other"


@pytest.mark.parametrize(("method", "nests"), [("graph", True), ("hardest", True), ("dual", False)])
def test_ranks_nest_but_where_the_order_goes_by_the_ratio(method: str, nests: bool) -> None:
    (lead,) = budgets(made_facts(run={**made_facts().run, "method": method})).lead
    assert ("The ranks nest" in lead) == nests and ("would keep others" in lead) == (not nests)
    assert "This run ends at 10.0 % of the interactions" in lead


def test_smaller_budgets_are_those_of_the_curve() -> None:
    section = budgets(made_facts())
    curve = section.data["curve"]
    assert curve["rank"][-1] == KEPT and curve["interactions"][-1] == 500
    assert section.data["cold"] == 30
    assert section.data["sql"].endswith("WHERE prune_rank <= ")


def test_a_baseline_without_difficulty_has_no_such_section() -> None:
    facts = made_facts()
    bare = made_facts(losses=facts.losses.iloc[:0], shares=facts.shares.iloc[:0])
    assert difficulty(bare, None) is None
    page = made_page(bare)
    assert 'id="difficulty"' not in page and "losses" not in data_of(page)["charts"]
