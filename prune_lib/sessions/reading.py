"""Reading the input: a Delta or Parquet table of sessions or events, its columns named or found.

An input is *events* (a row a click: session, item, time) or *sessions* (a row a session: id, array
of items in time order). It is opened (`open_input`: which table, which version, which columns; no
data read), brought into one form (`to_sessions`) and checked (`check_sessions`: every mistake that
the rows hold, in one message).
"""

from __future__ import annotations

from prune_lib.sessions.checking import SessionStats, check_sessions
from prune_lib.sessions.columns import ColumnNames, InputTable
from prune_lib.sessions.opening import open_input
from prune_lib.sessions.shaping import to_sessions

__all__ = [
    "ColumnNames",
    "InputTable",
    "SessionStats",
    "check_sessions",
    "open_input",
    "to_sessions",
]
