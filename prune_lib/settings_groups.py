"""Groups of settings: how sessions are sampled, how difficulty spreads, the demo data."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["STRICT", "DemoSettings", "PropagationSettings", "SamplingSettings"]

STRICT = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SamplingSettings(BaseModel):
    """How sessions are sampled: the objective's weights and the rounds."""

    model_config = STRICT

    kappa: float = Field(
        default=0.5,
        ge=-10,
        le=10,
        description="Strength of difficulty: keys are multiplied by exp(-kappa x difficulty rank). Above 0 "
        "easier sessions go first, below 0 harder ones; 0 leaves difficulty out.",
    )
    item_exponent: float = Field(
        default=0.25,
        ge=0,
        le=1,
        description="Weight of a target item: its recency-weighted count to this power. Smaller "
        "favours cold items.",
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
        description="Weight of all target items together, beside 1 for all transitions.",
    )
    max_distance: int = Field(
        default=3,
        ge=1,
        le=10,
        description="Clicks, at most, between the two items of a transition.",
    )
    sampler: Literal["auto", "exact", "rounds"] = Field(
        default="auto",
        description="exact: sequential lazy greedy in one task; rounds: distributed greedy in rounds; auto: "
        "exact up to `exact_edges`, else rounds.",
    )
    exact_edges: int = Field(
        default=5_000_000,
        ge=0,
        description="Largest number of session-pattern edges that one task samples (about 40 bytes each).",
    )
    epsilon: float = Field(
        default=0.5, gt=0, description="Rounds: evidence that a pattern admits in one round."
    )
    rho: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Rounds: threshold of a round as a share of the largest known key.",
    )
    delta: float = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Rounds: a pattern that supplies at least this share of a session's gain can "
        "hold it back.",
    )
    max_rounds: int = Field(default=200, ge=1, description="Rounds: so many at most.")
    max_patterns: int = Field(
        default=64_000_000,
        ge=1,
        lt=2**31,
        description="Largest number of patterns whose state is broadcast (about 30 bytes each).",
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


class DemoSettings(BaseModel):
    """The built-in data set that is generated where the workspace has no sessions."""

    model_config = STRICT

    sessions: int = Field(default=20_000, ge=2, description="Sessions of the demo data set.")
