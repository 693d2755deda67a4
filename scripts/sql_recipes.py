"""Runs every query of docs/sql.md on the demo data, and writes its result below it.

    spark-submit scripts/sql_recipes.py

The tables go to a folder that is removed at the end. A test imports what is here to run the same queries.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs" / "sql.md"
INPUT, OUTPUT = "shop.clicks", "shop.clicks_pruned"
# The place that the blocks of Python name.
PLACE = '"/data/clicks_pruned"'
SESSIONS, RATIOS = 2_000, (0.2, 0.1)

# A block of code, and the result below it: a table of Markdown, or a block of text.
_BLOCK = re.compile(
    r"^```(?P<language>sql|python)\n(?P<code>.*?)^```\n"
    r"(?:\n(?P<result>(?:\|[^\n]*\n)+|```text\n.*?^```\n))?",
    re.S | re.M,
)


@dataclass(frozen=True)
class Recipe:
    """A query of the document.

    Attributes:
        title: the heading above it.
        language: sql or python.
        code: what is run.
        columns: the columns that the document shows of its result; none for Python.
    """

    title: str
    language: str
    code: str
    columns: tuple[str, ...]


def recipes(text: str) -> list[Recipe]:
    r"""The queries of the document, in order.

    >>> recipes("## How many?\n\n```sql\nSELECT 1 AS n;\n```\n\n| n |\n|---|\n| 1 |\n")
    [Recipe(title='How many?', language='sql', code='SELECT 1 AS n', columns=('n',))]
    """
    found = []
    for block in _BLOCK.finditer(text):
        title = re.findall(r"^## (.*)$", text[: block.start()], re.M)[-1]
        result = block["result"] or ""
        head = result.split("\n", 1)[0] if result.startswith("|") else ""
        columns = tuple(name.strip() for name in head.strip("|").split("|") if name.strip())
        code = block["code"].strip().removesuffix(";")
        found.append(Recipe(title, block["language"], code, columns))
    return found


def with_results(text: str, results: Sequence[str]) -> str:
    """The document with these results, one for each query, in the place of its own."""
    rest = iter(results)
    return _BLOCK.sub(lambda m: f"```{m['language']}\n{m['code']}```\n\n{next(rest).rstrip()}\n", text)


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A result as a table of Markdown.

    >>> print(table(["item", "kept"], [[1, True], [None, False]]))
    | item | kept |
    |---|---|
    | 1 | true |
    | NULL | false |
    """
    lines = [columns, *[[_shown(value) for value in row] for row in rows]]
    head, *body = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([head, "|" + "---|" * len(columns), *body])


def _shown(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    return str(value)


def prepare(spark: SparkSession, workspace: str, **training: Any) -> None:
    """Make the demo data in the catalog, and prune it twice.

    Args:
        spark: the session; its catalog gets the schema `shop`.
        workspace: folder for the experts.
        training: settings of their training.
    """
    from prune_lib import PruneSettings
    from prune_lib.pipeline import run_prune
    from prune_lib.sessions.demo import write_demo

    spark.sql("CREATE SCHEMA IF NOT EXISTS shop")
    write_demo(spark, INPUT, SESSIONS, seed=0)
    for ratio in RATIOS:
        run_prune(
            PruneSettings.model_validate(
                {
                    "ratio": ratio,
                    "input": INPUT,
                    "output": OUTPUT,
                    "workspace": workspace,
                    "training": training,
                }
            ),
            spark,
        )


def run_python(code: str, place: str) -> tuple[dict[str, Any], str]:
    """Run a block of Python on tables elsewhere: its names, and what it printed."""
    if PLACE not in code:
        raise ValueError(f"a block of Python does not name {PLACE}")
    names: dict[str, Any] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        exec(compile(code.replace(PLACE, repr(place)), DOCUMENT.name, "exec"), names)  # noqa: S102
    return names, said.getvalue()


def _result(spark: SparkSession, recipe: Recipe, place: str) -> str:
    if recipe.language == "python":
        return f"```text\n{run_python(recipe.code, place)[1].strip()}\n```"
    frame = spark.sql(recipe.code)
    return table(frame.columns, [list(row) for row in frame.collect()])


def main() -> None:
    """Write the document anew."""
    sys.path.insert(0, str(ROOT))
    from prune_lib import get_spark

    text = DOCUMENT.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        spark = get_spark("docs/sql.md", extra={"spark.sql.warehouse.dir": f"{folder}/warehouse"})
        prepare(spark, f"{folder}/workspace")
        detail = spark.sql(f"DESCRIBE DETAIL {OUTPUT}").first()
        assert detail is not None  # the table is there
        place = str(detail["location"]).removeprefix("file:")
        results = [_result(spark, recipe, place) for recipe in recipes(text)]
        spark.stop()
    DOCUMENT.write_text(with_results(text, results), encoding="utf-8")


if __name__ == "__main__":
    main()
