"""The mixture of experts that scores sessions: three small next-item models and the gate over them.

`settings` (what can be set) needs neither torch nor Petastorm; every other module of this package
imports torch, so import them where they are used.
"""

from __future__ import annotations

from prune_lib.experts.settings import EXPERTS, TrainSettings

__all__ = ["EXPERTS", "TrainSettings"]
