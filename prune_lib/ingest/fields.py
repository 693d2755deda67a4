"""Fields of a line of CSV as patterns: they see what Spark's reader takes without a word, or stops at.

They are Java's patterns, as `rlike` takes them. Every repetition in them is possessive (Python has that from
3.11 on only): nothing is tried twice, and none goes deep on a long line.
"""

from __future__ import annotations

import re

__all__ = ["more_fields", "unclosed", "well_quoted"]


def unclosed(delimiter: str) -> str:
    """The pattern of a line whose last field opens a quote that it does not close (`a,"b`, not `a,5" tv`)."""
    return f'^(?:{_field(delimiter)}{re.escape(delimiter)})*+{_QUOTED}"'


def more_fields(delimiter: str, than: int) -> str:
    """The pattern of a line that has more fields than a number; a delimiter within quotes parts none."""
    return f"^(?:{_field(delimiter)}{re.escape(delimiter)}){{{than}}}+"


def well_quoted(delimiter: str) -> str:
    """The pattern of a record with line breaks within quotes only, and nothing from those to a delimiter."""
    mark = re.escape(delimiter)
    field = f'(?:(?:"[^"]*+")++|(?:[^"{mark}\\n][^{mark}\\n]*+)?+)'
    return f"^(?:{field}{mark})*+{field}(?![\\s\\S])"


#: Texts between quotes, a doubled quote within being the end of one and the beginning of the next.
_QUOTED = '(?:"[^"]*+")*+'


def _field(delimiter: str) -> str:
    """A field, with what stands behind its quotes; a quote within a text is a letter."""
    mark = re.escape(delimiter)
    return f'{_QUOTED}(?:[^"{mark}][^{mark}]*+)?+'
