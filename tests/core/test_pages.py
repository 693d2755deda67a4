"""Pages on a session and an item, from facts made by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from prune_lib.errors import SettingsError
from prune_lib.lookup import ItemFacts, SessionFacts
from prune_lib.pages import explain, item_page, key_of, session_page

RUN: dict[str, Any] = {
    "run_id": "r1",
    "method": "graph",
    "ratio": 0.1,
    "budget": "interactions",
    "input": "shop.sessions",
    "input_version": 3,
    "sessions_before": 20_000,
    "sessions_after": 1_780,
}
SETTINGS = {"budget": "interactions", "sampling": {"kappa": 0.5}}
KEPT: dict[str, Any] = {
    "session_id": "s12",
    "kept": True,
    "rank": 12,
    "reason": "COLD_ITEM",
    "difficulty": 0.62,
    "raw_difficulty": 5.21,
    "difficulty_gnn": 5.1,
    "difficulty_rnn": 5.4,
    "difficulty_transformer": 5.0,
    "gate_gnn": 0.25,
    "gate_rnn": 0.4,
    "gate_transformer": 0.35,
    "propagated": 0.58,
    "gain": 4e-4,
    "gain_parts": [
        {"item": "b", "next_item": None, "gain": 3e-4},
        {"item": "a", "next_item": "b", "gain": 1e-4},
    ],
    "interactions": 2,
    "items": 2,
    "covered_by": None,
    "shared_items": None,
}


def page(clicks: list[str] | None = None, lines: int = 20, run: Any = None, **changes: Any) -> str:
    facts = SessionFacts({**KEPT, **changes}, {**RUN, **(run or {})}, 11.3, clicks, SETTINGS)
    return session_page(facts, lines)


def test_the_page_of_a_kept_session() -> None:
    """To be read as a whole: a change of the page shows as a change of this text."""
    assert page(["a", "b"]) == (
        "Session s12 was kept: rank 12 of 1,780.\n"
        "COLD_ITEM: most of what it added no kept session had held, and was for rare items.\n"
        "\n"
        "  clicks        2: a → b\n"
        "  difficulty    0.62, its rank among all sessions, 1 = hardest, loss 5.21 nats\n"
        "  experts       gnn 5.10 (weight 0.25), rnn 5.40 (weight 0.40), "
        "transformer 5.00 (weight 0.35) nats\n"
        "  neighbours    0.58 after propagation: sessions that share its patterns are easier (-0.04)\n"
        "  stands for    11.3 of 20,000 sessions\n"
        "  gain          0.0004 added when it was chosen, made of\n"
        "                 75.0 %  item b\n"
        "                 25.0 %  a → b\n"
        "  key           0.00015 = gain × exp(−0.5 × 0.58) / 2 clicks: largest first\n"
        "\n"
        "Run r1: graph, 10 % of the interactions of shop.sessions, version 3."
    )


def test_the_page_of_a_pruned_session_names_who_covers_it() -> None:
    text = page(
        None, kept=False, rank=None, reason="COVERED", covered_by="s3", shared_items=["a", "b"], gain_parts=[]
    )
    assert text.startswith("Session s12 was pruned.\nCOVERED: the kept sessions already give most")
    assert "covered by    session s3, which shares a, b" in text
    assert "could still add at the end" in text and "cannot be read any more" in text
    twin = page(None, kept=False, rank=None, reason="DUPLICATE", covered_by="s3", shared_items=["a", "b"])
    assert "session s3, the same sequence" in twin


def test_the_page_of_a_bot_says_from_where_on_sessions_look_like_one() -> None:
    bot = {"kept": False, "rank": None, "reason": "BOT", "interactions": 190}
    text = page(None, run={"bot_limits": {"clicks": 57.26, "repeats": 10.18}}, **bot)
    assert "BOT: far longer than other sessions" in text
    assert "  limits        57 clicks, or 10.2 clicks an item\n" in text
    assert "limits" not in page(None, run={"bot_limits": None}, **bot), "a run of an older version"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": "FLOOR", "gain": None, "gain_parts": None}, "not known: it was chosen for a floor"),
        (
            {"reason": "METHOD", "gain": None, "gain_parts": None},
            "not known: it was chosen by the rule of a base",
        ),
        ({"difficulty": None, "propagated": None}, "difficulty    none"),
        ({"gain_parts": None}, "which an older version wrote"),
        ({"gain": 0.0, "gain_parts": []}, "gain          0 added when it was chosen\n"),
        # An older version wrote gains of twelve decimals.
        ({"gain": 0.0, "gain_parts": [{"item": "b", "next_item": None, "gain": 3e-14}]}, "100.0 %  item b\n"),
        ({"propagated": 0.62}, "as hard as it is"),
    ],
)
def test_what_a_session_lacks_is_said(changes: dict[str, Any], said: str) -> None:
    assert said in page(["a", "b"], **changes)


def test_the_key_is_of_sessions_where_the_budget_counts_them() -> None:
    facts = SessionFacts(KEPT, RUN, None, None, {**SETTINGS, "budget": "sessions"})
    assert key_of(facts) == pytest.approx(math.exp(-0.5 * 0.58) * 4e-4)
    assert key_of(SessionFacts({**KEPT, "gain": None}, RUN, None, None, SETTINGS)) is None


def test_what_was_not_chosen_by_its_key_has_none() -> None:
    """A floor's session goes by the floor, and one behind the sampler's rounds was put in line."""
    assert "  key  " not in page(["a", "b"], reason="FLOOR") and "  gain  " in page(
        ["a", "b"], reason="FLOOR"
    )
    rounds = [{"phase": "floor", "picked": 10}, {"phase": "redundant", "picked": -2}]
    for picked, there in ((3, False), (4, True)):  # its rank is 12
        run = {"rounds": [*rounds, {"phase": "coverage", "picked": picked}]}
        assert ("  key  " in page(["a", "b"], run=run)) is there


def test_a_long_gain_is_cut_and_its_rest_is_summed() -> None:
    text = page(["a", "b"], lines=1)
    assert "75.0 %  item b" in text and "25.0 %  1 more patterns" in text and "a → b\n  key" not in text


def test_ids_that_would_move_the_cursor_are_escaped() -> None:
    text = page(["a\r\x1b[2Jb", "<script>🙂"], session_id="x\ny")
    assert "Session x\\ny was" in text and "a\\r\\x1b[2Jb → <script>🙂" in text


def test_the_page_of_an_item() -> None:
    item = {
        "item": "b",
        "band": "cold",
        "sessions_before": 4,
        "interactions_before": 5,
        "sessions_after": 2,
        "interactions_after": 3,
        "share_kept": 0.5,
        "mean_difficulty": 0.7,
    }
    kept = [{"prune_rank": 12, "session_id": "s12", "prune_reason": "COLD_ITEM", "prune_weight": 11.25}]
    reasons = {"BUDGET": 1, "COLD_ITEM": 2, "COVERED": 1}
    text = item_page(ItemFacts(item, RUN, kept, reasons))
    assert text.splitlines()[:4] == [
        "Item b is cold: 4 sessions of the input hold it, in 5 clicks.",
        "",
        "  kept          2 of these sessions (50.0 %), 3 of these clicks",
        "  difficulty    0.70, mean rank of its sessions, 1 = hardest",
    ]
    assert "  why                  2  COLD_ITEM: most of what it added" in text
    assert text.index("COLD_ITEM: ") < text.index("BUDGET: ") < text.index("COVERED: ")
    assert "  kept sessions rank 12  s12  COLD_ITEM, stands for 11.2" in text
    assert "and 1 more" in text
    assert "why" not in item_page(ItemFacts(item, RUN, kept, None))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "there is nothing to explain: give the id of a session by `session`"),
        ({"session": ""}, "`session` must be text"),
        ({"session": 1, "output": "a.b.c.d"}, "`output` 'a.b.c.d' has 4 parts"),
        ({"session": 1, "lines": 0}, "`lines` must be 1 or more; got 0"),
    ],
)
def test_a_wrong_call_is_told_as_one(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as told:
        explain(**asked)
    assert said in str(told.value) and "--" not in str(told.value)
