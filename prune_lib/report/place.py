"""Where the page goes: seen to before anything is computed, written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from prune_lib.errors import OutputError

__all__ = ["check_place", "write_page"]


def check_place(place: Path) -> None:
    """See, before anything is computed, that a page can be written.

    Raises:
        OutputError: there is a folder in its place, or its own folder cannot be written to.
    """
    try:
        folder = place.is_dir()
        there = next(parent for parent in place.parents if parent.exists())
    except OSError as error:  # a folder on the way may not be entered
        raise OutputError(
            f"The report cannot be written to {place}: {error.strerror or error}. See --path."
        ) from error
    if folder:
        raise OutputError(
            f"--path {place} is a folder: name the file of the page, such as {place}/report.html."
        )
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise OutputError(
            f"The report cannot be written to {place}: {there} cannot be written to. See --path."
        )


def write_page(place: Path, text: str) -> None:
    """Write a page, all of it or none.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", dir=place.parent, prefix=f".{place.name}-", delete=False
        ) as scratch:
            try:
                scratch.write(text)
                scratch.flush()
                # A temporary file is its owner's alone; a report is as readable as any other file.
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(scratch.name, 0o666 & ~umask)
                os.replace(scratch.name, place)
            except BaseException:
                os.unlink(scratch.name)
                raise
    except OSError as error:
        raise OutputError(f"The report cannot be written to {place}: {error.strerror or error}.") from error
