"""Ablations (filled next)."""

from __future__ import annotations
from typing import Any


def check_ablations(names: Any) -> None: ...
def run_ablations(*a: Any) -> None: ...
