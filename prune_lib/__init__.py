"""Prune recommendation data: keep the small part of the sessions that carries the value.

    from prune_lib import prune
    pruned = prune(clicks, ratio=0.1)       # a Spark or pandas DataFrame, or the name or location of a table
    pruned.sessions                         # the kept rows, a DataFrame; also .decisions and .items
    print(pruned.summary())
    print(pruned.explain("4711"))           # why a session was kept or dropped

Importing the package needs neither Spark, torch, petastorm nor MLflow: each is loaded by the stage that
uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prune_lib.errors import PruneError, UserError
from prune_lib.settings import PruneSettings
from prune_lib.settings.train import ExpertsSettings

if TYPE_CHECKING:
    from prune_lib.api import evaluate, ingest_log, prune
    from prune_lib.pages import explain
    from prune_lib.pruned import Pruned
    from prune_lib.session import get_spark
    from prune_lib.sessions.demo import demo_sessions
    from prune_lib.train_job import train
    from prune_lib.views import create_views

__all__ = [
    "ExpertsSettings",
    "PruneError",
    "PruneSettings",
    "Pruned",
    "UserError",
    "create_views",
    "demo_sessions",
    "evaluate",
    "explain",
    "get_spark",
    "ingest_log",
    "prune",
    "train",
]

__version__ = "0.1.0"

# Public names that need Spark: loaded when first asked for (PEP 562).
_LAZY = {
    "create_views": "prune_lib.views",
    "demo_sessions": "prune_lib.sessions.demo",
    "evaluate": "prune_lib.api",
    "explain": "prune_lib.pages",
    "get_spark": "prune_lib.session",
    "ingest_log": "prune_lib.api",
    "Pruned": "prune_lib.pruned",
    "prune": "prune_lib.api",
    "train": "prune_lib.train_job",
}


def __getattr__(name: str) -> Any:
    """Load a public name that needs Spark."""
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
