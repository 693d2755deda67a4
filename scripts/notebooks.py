"""Runs the notebooks on the demo data, and stores what their cells show.

    .venv/bin/python scripts/notebooks.py           # all of them; or 01 03

Cells run in a folder that is removed at the end, so that a stored output depends on nothing that lies here.
A test imports `execute` to run the same notebooks on fewer sessions.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "notebooks"
# No cell takes as long on one core.
_LIMIT_SECONDS = 1800


def paths() -> list[Path]:
    """The notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(
    path: Path, folder: Path, parameters: Mapping[str, Any] | None = None, checks: str = ""
) -> nbformat.NotebookNode:
    """Run a notebook in a kernel of its own.

    Args:
        path: the notebook; it is only read.
        folder: where its cells run; its workspace lies there.
        parameters: values for names of its cell tagged `parameters`.
        checks: code to run after its last cell.

    Returns:
        The notebook with the outputs of this run, its cells as they were.

    Raises:
        CellExecutionError: a cell failed; the message has its code and its traceback.
        ValueError: it has no such parameter.
    """
    book: nbformat.NotebookNode = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in book.cells]
    (place,) = (n for n, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ()))
    book.cells[place].source = with_values(sources[place], parameters or {})
    if checks:
        book.cells.append(nbformat.v4.new_code_cell(checks))
    client = NotebookClient(
        book, timeout=_LIMIT_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    del book.cells[len(sources) :]
    for cell, source in zip(book.cells, sources, strict=True):
        cell.source = source
        cell.metadata.pop("execution", None)  # times of day
    return book


def with_values(source: str, values: Mapping[str, Any]) -> str:
    """The parameters' cell with other values.

    >>> with_values("N = 5  # how many", {"N": 7})
    'N = 7'
    """
    lines = source.splitlines()
    names = [line.partition(" = ")[0] for line in lines]
    if unknown := set(values) - set(names):
        raise ValueError(f"no parameter of the notebook: {', '.join(sorted(unknown))}")
    return "\n".join(
        f"{name} = {values[name]!r}" if name in values else line
        for name, line in zip(names, lines, strict=True)
    )


def main(argv: Sequence[str]) -> int:
    """Run those whose names start so, or all; store their outputs."""
    chosen = [path for path in paths() if not argv or path.name.startswith(tuple(argv))]
    with tempfile.TemporaryDirectory(prefix="notebooks-") as folder:
        for path in chosen:
            print(path.name, flush=True)
            try:
                book = execute(path, Path(folder))
            except CellExecutionError as problem:
                print(problem, file=sys.stderr)
                return 1
            # The kernel's own version is of this machine.
            book.metadata["language_info"] = {"name": "python"}
            nbformat.write(book, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
