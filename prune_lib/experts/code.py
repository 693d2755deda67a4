"""Which code trains experts and computes their losses: what other code made is not taken for its own."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING

from prune_lib.errors import EnvironmentProblem

if TYPE_CHECKING:
    from importlib.abc import Traversable

__all__ = ["code_hash", "sources"]

# Difficulty is made of losses by popularity band: what computes either is no file of this package.
_ALSO = (("difficulty.py",), ("popularity.py",))


@cache
def code_hash() -> str:
    """A hash of this package, of what it scores by and computes with; 64 hexadecimal digits."""
    import numpy
    import torch

    content = hashlib.sha256(f"{torch.__version__}/{numpy.__version__}".encode())
    for path, file in sources():
        if path[0] == "experts" or path in _ALSO:
            content.update(file)
    return content.hexdigest()


def sources() -> list[tuple[tuple[str, ...], bytes]]:
    """The Python files of the whole project, by the parts of their paths; in a folder, or in an archive.

    Raises:
        EnvironmentProblem: there are none.
    """
    found = sorted(_python_files(files("prune_lib"), ()))
    if not found:
        raise EnvironmentProblem(
            "The Python files of prune_lib cannot be found where it was imported from, so that nothing tells "
            "its versions apart. Install it, or give its archive with the files in it (--py-files), not the "
            "compiled ones alone."
        )
    return found


def _python_files(folder: Traversable, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], bytes]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _python_files(entry, (*path, entry.name))
        elif entry.name.endswith(".py"):
            yield (*path, entry.name), entry.read_bytes()
