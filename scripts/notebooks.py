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
# A process that is started later asks the main module for its `__spec__`.
_CLEAR = "%reset -f\n__spec__ = None"
# No cell takes as long on one core.
_LIMIT_SECONDS = 1800


def all_notebooks() -> list[Path]:
    """The notebooks, in order."""
    return sorted(FOLDER.glob("[0-9][0-9]_*.ipynb"))


def execute(
    paths: Sequence[Path],
    folder: Path,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
    checks: Mapping[str, str] | None = None,
) -> list[nbformat.NotebookNode]:
    """Run notebooks one after the other in one kernel, whose names are cleared in between.

    What they share is Spark's session, which takes longer to start than most cells.

    Args:
        paths: the notebooks; they are only read.
        folder: where their cells run; the workspace lies there.
        parameters: by a notebook's name without its ending, values for its cell tagged `parameters`.
        checks: by the same name, code to run after the last cell.

    Returns:
        The notebooks with the outputs of this run, their cells as they were.

    Raises:
        CellExecutionError: a cell failed; the message has its code and its traceback.
        ValueError: there is no such parameter.
    """
    books: list[nbformat.NotebookNode] = [nbformat.read(one, as_version=4) for one in paths]
    together = nbformat.v4.new_notebook(metadata=books[0].metadata)
    sources = [[cell.source for cell in book.cells] for book in books]
    for one, book in zip(paths, books, strict=True):
        (place,) = (cell for cell in book.cells if "parameters" in cell.metadata.get("tags", ()))
        place.source = with_values(place.source, (parameters or {}).get(one.stem, {}))
        more = [(checks or {}).get(one.stem, ""), _CLEAR]
        # The same cells, so that their outputs are the notebook's own.
        together.cells += book.cells + [nbformat.v4.new_code_cell(source) for source in more]
    client = NotebookClient(
        together, timeout=_LIMIT_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    for book, own in zip(books, sources, strict=True):
        for cell, source in zip(book.cells, own, strict=True):
            cell.source = source
            cell.metadata.pop("execution", None)  # times of day
    return books


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
    chosen = [path for path in all_notebooks() if not argv or path.name.startswith(tuple(argv))]
    with tempfile.TemporaryDirectory(prefix="notebooks-") as folder:
        for path in chosen:
            print(path.name, flush=True)
            try:
                (book,) = execute([path], Path(folder))
            except CellExecutionError as problem:
                print(problem, file=sys.stderr)
                return 1
            # The kernel's own version is of this machine.
            book.metadata["language_info"] = {"name": "python"}
            nbformat.write(book, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
