"""Groups of settings: how sessions are sampled, which are suspect, how difficulty spreads, the demo data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "STRICT",
    "DemoSettings",
    "Engine",
    "PropagationSettings",
    "SamplingSettings",
    "SuspectsSettings",
]

#: How propagation is computed.
Engine = Literal["auto", "graphframes", "arrays"]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SamplingSettings(BaseModel):
    """How sessions are sampled: the objective's weights and the rounds."""

    model_config = STRICT

    kappa: float = Field(
        default=0.25,
        ge=-10,
        le=10,
        description="Strength of difficulty: keys are multiplied by exp(-kappa x difficulty rank). Above 0 "
        "easier sessions go first, below 0 harder ones; 0 leaves difficulty out.",
    )
    item_exponent: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="With demand = recency, or where there is no forecast: weight of a target item, its "
        "recency-weighted count to this power. Smaller favours cold items.",
    )
    demand: Literal["recency", "forecast"] = Field(
        default="forecast",
        description="What weights go by. recency: recency-weighted counts; forecast: the sessions that are "
        "expected to hold an item or a transition next, learned from the input's own past; recency where "
        "the input has no order or too few of them to learn from.",
    )
    forecast_exponent: float = Field(
        default=0.4,
        ge=0,
        le=1,
        description="With demand = forecast: weight of a target item, its expected sessions to this power.",
    )
    transition_exponent: float = Field(
        default=0.5,
        ge=0,
        le=1,
        description="Weight of a transition: its leave-one-out count to this power.",
    )
    half_life: float = Field(
        default=0.2,
        gt=0,
        description="Recency: a session counts exp(-age / half_life), age 0 for the newest and 1 for the "
        "oldest. Large values weigh all sessions alike.",
    )
    lambda_items: float = Field(
        default=1.0,
        ge=0,
        # Gains are integers in units of 2^-52: what everything together is worth must stay below 2^11.
        le=1000,
        description="Weight of all target items together, beside 1 for all transitions.",
    )
    max_distance: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Clicks, at most, between the two items of a transition.",
    )
    min_support: int = Field(
        default=2,
        ge=2,
        description="Sessions, at least, that hold a transition for it to count. More than 2 only for inputs "
        "of so many patterns that `max_patterns` refuses them: rare transitions then count for nothing.",
    )
    sampler: Literal["auto", "exact", "rounds"] = Field(
        default="auto",
        description="How greedy runs; the choice is the same. exact: in one task; rounds: in rounds that "
        "each send about `task_edges` edges to one task; auto: exact up to `task_edges`, else rounds.",
    )
    task_edges: int = Field(
        default=40_000_000,
        ge=1,
        description="Session-pattern edges that one task of the sampler holds (about 20 bytes each).",
    )
    max_patterns: int = Field(
        default=64_000_000,
        ge=1,
        lt=2**31,
        description="Largest number of patterns whose state is broadcast (about 150 bytes each on the "
        "driver, 25 in every Python worker).",
    )


class PropagationSettings(BaseModel):
    """How difficulty spreads over the session graph before sampling."""

    model_config = STRICT

    alpha: float = Field(
        default=0.3,
        ge=0,
        le=1,
        description="Share of the neighbourhood in a session's new difficulty.",
    )
    rounds: int = Field(default=1, ge=0, le=100, description="Rounds of propagation; 0 for none.")
    engine: Engine = Field(
        default="auto",
        description="How it is computed; the result is the same. graphframes: aggregateMessages, all of it "
        "distributed; arrays: two arrays by pattern are broadcast, several times faster; auto: graphframes "
        "while memory holds the vertices at each task, arrays beyond.",
    )


class SuspectsSettings(BaseModel):
    """Which sessions look like bots or noise, and what becomes of them."""

    model_config = STRICT

    bots: Literal["last", "alike"] = Field(
        default="last",
        description="Sessions that look like bots. last: kept where a floor needs them, else after all "
        "others; alike: chosen as any other.",
    )
    noise: Literal["last", "alike"] = Field(
        default="last",
        description="Sessions that look like noise: among the hardest, and none of their transitions in "
        "another session (in `min_support` sessions). last, alike: as for bots.",
    )
    max_clicks: float | None = Field(
        default=None,
        ge=1,
        description="Clicks beyond which a session looks like a bot's. Default: far out among the lengths "
        "of the input, but at least 50.",
    )
    max_repeats: float | None = Field(
        default=None,
        ge=1,
        description="Clicks an item, after the first click, beyond which a session looks like a bot's. "
        "Default: far out among those of the input, but at least 8.",
    )
    hardest: float = Field(
        default=0.75,
        ge=0,
        le=1,
        description="Difficulty rank from which a session without company looks like noise.",
    )


class DemoSettings(BaseModel):
    """The built-in data set that is generated where the workspace has no sessions."""

    model_config = STRICT

    sessions: int = Field(default=20_000, ge=2, description="Sessions of the demo data set.")
