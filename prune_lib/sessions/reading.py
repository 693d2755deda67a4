"""Reading the input: a Delta or Parquet table of sessions or events, its columns named or found.

An input is *events* (a row a click: session, item, time) or *sessions* (a row a session: id, array
of items in time order). It is opened (`open_input`: which table, which version, which columns; no
data read), brought into one form (`to_sessions`; `settled_sessions`, once for all who read them) and
checked (`check_sessions`: every mistake that the rows hold, in one message).
"""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from prune_lib.sessions.checking import SessionStats, check_sessions
from prune_lib.sessions.columns import ColumnNames, InputTable
from prune_lib.sessions.opening import open_input
from prune_lib.sessions.read_errors import reading_errors
from prune_lib.sessions.shaping import to_sessions
from prune_lib.settle import settle

__all__ = [
    "ColumnNames",
    "InputTable",
    "SessionStats",
    "check_sessions",
    "open_input",
    "settled_sessions",
    "to_sessions",
]


def settled_sessions(table: InputTable) -> DataFrame:
    """What `to_sessions` makes of an input, with the clicks that tie, computed and kept.

    Without `ordering` where all sessions have the same: they would be old and new by their ids.

    Cost: a pass over the input, and one over its sessions' times; for events a shuffle of its clicks.

    Raises:
        InputError: a file of the input is cut off, garbled, gone, or may not be read.
    """
    with reading_errors(table.location, analysed=True):
        sessions = settle(to_sessions(table, tied=True))
        if "ordering" in sessions.columns:
            ends = sessions.agg(F.min("ordering"), F.max("ordering"), F.count("*")).first()
            assert ends is not None  # an aggregate without keys has one row
            if ends[2] > 1 and ends[0] == ends[1]:
                return sessions.drop("ordering")
        return sessions
