"""Loops over arrays that are compiled at their first call, by numba."""

from __future__ import annotations

from typing import Any

import numba

__all__ = ["compiled"]


def compiled(function: Any) -> Any:
    """Compile at the first call; kept on disk for other processes where there is a place to keep it.

    The place goes by the module's file: on a cluster, where the package comes as an archive of the
    application, each application compiles anew.
    """
    try:
        return numba.njit(cache=True)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(function)
