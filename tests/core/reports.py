"""A report of made-up facts, whose ids are as hostile as ids can be."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from prune_lib.experts.settings import EXPERTS
from prune_lib.report.facts import MIXTURE, Entry, Facts, Measured, Neighbourhood
from prune_lib.report.page import MapPoints, render
from prune_lib.report.parts import Section
from prune_lib.report.sections import experts, items, kept, run, sessions

HOSTILE = "</script><script>document.title='taken'</script>\"'&`${1}\u2028🙂"
#: As a role of colour would be written.
ROLE = "@kept"
SESSIONS, KEPT, ITEMS = 1_000, 120, 60


def made_facts(**changes: Any) -> Facts:
    """A run that kept 120 of 1,000 sessions."""
    before = np.sort(np.random.default_rng(7).zipf(1.6, ITEMS).clip(max=400))[::-1]
    after = np.minimum(before, 1 + before // 8) * (np.arange(ITEMS) < ITEMS - 6)
    bands = np.where(np.arange(ITEMS) < 8, "popular", np.where(np.arange(ITEMS) < 30, "mid", "cold"))
    ranks = np.arange(1, KEPT + 1)
    stages = [
        {"name": n, "seconds": s, "rows": r} for n, s, r in (("read", 1.5, SESSIONS), ("write", 2.0, None))
    ]
    values: dict[str, Any] = {
        "output": f"/data/{HOSTILE}",
        "run": {
            "run_id": "r1",
            "started_at": datetime(2026, 11, 26, 7, 30),
            "finished_at": datetime(2026, 11, 26, 7, 31),
            "method": "graph",
            "unit": "session",
            "ratio": 0.1,
            "budget": "interactions",
            "seed": 0,
            "settings_hash": "abc",
            "input": f"/data/{HOSTILE}",
            "input_version": 3,
            "experts_version": "e1",
            "sessions_before": SESSIONS,
            "sessions_after": KEPT,
            "interactions_before": 5_000,
            "interactions_after": 500,
            "items_before": ITEMS,
            "items_after": ITEMS - 6,
            "gini_before": 0.6,
            "gini_after": 0.4,
            "duplicates_before": 30,
            "duplicates_after": 1,
            "objective": 0.75,
            "demand": "forecast",
            "weight_error": 0.12,
            "stages": stages,
            "warnings": [f"strange: {HOSTILE}"],
            "versions": {"spark": "3.5"},
        },
        "settings": {"score": "nll", "floor": 0, "suspects": {"bots": "last", "noise": "last"}},
        "samples": False,
        "reasons": pd.DataFrame(
            {
                "reason": ["NEW_PATTERN", "COLD_ITEM", "COVERED", "NOISE", "DUPLICATE", "BUDGET"],
                "kept": [True, True, False, False, False, False],
                "sessions": [100, 20, 780, 70, 29, 1],
                "interactions": [420, 80, 4_100, 250, 145, 5],
                "difficulty": [0.3, 0.4, 0.5, 0.9, 0.2, np.nan],
            }
        ),
        "items": pd.DataFrame(
            {
                "band": bands,
                "sessions_before": before,
                "sessions_after": after,
                "interactions_before": before,
                "interactions_after": after,
            }
        ),
        "curve": pd.DataFrame(
            {
                "rank": ranks,
                "sessions": ranks,
                "interactions": np.linspace(5, 500, KEPT).astype(int),
                "items": np.minimum(ranks, ITEMS - 6),
                "cold": np.minimum(ranks // 5, 24),
                "mid": np.minimum(ranks // 2, 22),
                "popular": np.minimum(ranks, 8),
                "objective": 0.75 * np.sqrt(ranks / KEPT),
                "difficulty": 0.4,
            }
        ),
        "losses": pd.DataFrame(
            [
                {"expert": e, "kept": k, "low": b * 0.5, "high": b * 0.5 + 0.5, "sessions": 10 + b + k}
                for e in (*EXPERTS, MIXTURE)
                for k in (False, True)
                for b in range(10)
            ]
        ),
        "shares": pd.DataFrame(
            {"twentieth": range(20), "sessions": 50, "kept": range(20, 0, -1), "disagreement": 0.5}
        ),
        "lengths": pd.DataFrame(
            {"interactions": [2, 2, 3, 3], "kept": [False, True] * 2, "sessions": [500, 60, 380, 60]}
        ),
    }
    return Facts(**{**values, **changes})


def made_fairness() -> dict[str, Any]:
    """As a bundle has it."""
    names = [*(f"loss_{e}" for e in EXPERTS), "loss_mixture", "adjusted", "disagreement"]
    deciles = [
        {"from": 2**d, "to": 2 ** (d + 1), "positions": 9}
        | {name: 5.0 - d / 2 for name in names}
        | {f"gate_{e}": 1 / 3 for e in EXPERTS}
        for d in range(4)
    ]
    return {
        "spearman": {**{e: -0.5 for e in EXPERTS}, "mixture": -0.5, "adjusted": -0.05},
        "deciles": deciles,
    }


def made_points(n: int = 80) -> MapPoints:
    """Points in two clusters, whose ids and items are hostile."""
    place = np.linspace(0, 1, n)
    return MapPoints(
        x=place.astype(np.float32),
        y=(place**2).astype(np.float32),
        session=[HOSTILE, *(f"s{i}" for i in range(1, n))],
        clicks=[[HOSTILE, ROLE]] * n,
        difficulty=np.where(place < 0.1, np.nan, place),
        cluster=(place > 0.5).astype(np.int64),
        reason=["NEW_PATTERN" if i % 8 == 0 else "COVERED" for i in range(n)],
        rank=np.where(np.arange(n) % 8 == 0, np.arange(n) + 1.0, np.nan),
        clusters=[f"{HOSTILE}, b", "c"],
        unit="sessions",
    )


def made_sections(facts: Facts) -> list[Section]:
    """Every section that there is."""
    rows = pd.DataFrame(
        {
            "session_id": [HOSTILE, "b"],
            "reason": ["DUPLICATE", "NEW_PATTERN"],
            "interactions": [2, 15],
            "difficulty": [0.2, np.nan],
            "covered_by": [HOSTILE, None],
            "clicks": [[HOSTILE, ROLE], list(range(15))],
            "cover_clicks": [[HOSTILE, ROLE], None],
        }
    )
    around = Neighbourhood(
        session=HOSTILE,
        reason="COVERED",
        clicks=[HOSTILE, ROLE],
        items=[Entry(HOSTILE, HOSTILE, f"item {HOSTILE}"), Entry(ROLE, ROLE, "item")],
        kept=[
            Entry("k1", HOSTILE, f"kept {HOSTILE}", (HOSTILE, ROLE), is_cover=True),
            Entry("k2", "k2", "kept", (ROLE,)),
        ],
        left_out=0,
    )
    measured = Measured(
        pd.DataFrame(
            [
                {
                    "target": t,
                    "method": m,
                    "ratio": r,
                    "mean": v,
                    "low": v - 0.01,
                    "high": v + 0.01,
                    "seeds": 2,
                }
                for t in ("gru4rec", "markov")
                for m, r, v in (
                    ("all", 1.0, 0.7),
                    ("graph", 0.1, 0.6),
                    ("graph", 0.3, 0.66),
                    ("random", 0.1, 0.5),
                    ("random", 0.3, 0.6),
                )
            ]
        ),
        HOSTILE,
        "test",
        "steps",
        "e9",
    )
    found = [
        kept.what_was_kept(facts),
        kept.reasons(facts),
        kept.budgets(facts),
        items.items(facts),
        run.performances(measured),
        experts.difficulty(facts, made_fairness()),
        experts.map_of(facts, 80, SESSIONS),
        sessions.examples_of(facts, rows),
        sessions.around(around),
        run.the_run(facts, [("Look", f"SELECT '{HOSTILE}'")]),
    ]
    return [section for section in found if section is not None]


def made_page(facts: Facts | None = None) -> str:
    """The whole page."""
    return render(HOSTILE, HOSTILE, made_sections(facts or made_facts()), made_points(), "0.1")
