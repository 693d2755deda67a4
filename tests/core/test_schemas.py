from __future__ import annotations

import re
import subprocess
import sys

import pytest

from prune_lib.schemas import (
    KEPT_REASONS,
    PRUNED_REASONS,
    REASONS,
    TABLE_COMMENTS,
    TABLES,
    OutColumn,
    column_type,
)

ALL = [(table, column) for table, columns in TABLES.items() for column in columns]


def test_importing_the_schemas_needs_no_spark() -> None:
    code = "import sys, prune_lib.schemas; sys.exit('pyspark' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("table", "column"), ALL, ids=lambda x: getattr(x, "name", x))
def test_every_column_has_a_name_a_type_and_a_comment(table: str, column: OutColumn) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", column.name)
    assert column.comment and "\n" not in column.comment
    filled = column_type(column, "string", "bigint")
    assert not re.search(r"\b(ID|ITEM)\b", filled)


def test_names_are_unique_and_every_table_has_a_comment() -> None:
    assert set(TABLE_COMMENTS) == set(TABLES)
    for columns in TABLES.values():
        assert len({c.name for c in columns}) == len(columns)


def test_reasons_are_of_one_kind_each() -> None:
    assert not set(KEPT_REASONS) & set(PRUNED_REASONS)
    assert all(text.startswith("kept: ") for text in KEPT_REASONS.values())
    assert all(text.startswith("pruned: ") for text in PRUNED_REASONS.values())
    decided = next(c for c in TABLES["decisions"] if c.name == "reason")
    assert all(reason in decided.comment for reason in REASONS)


def test_every_difficulty_says_which_way_it_points() -> None:
    scores = [c for _, c in ALL if "difficulty" in c.name or c.name == "propagated"]
    assert len(scores) >= 7
    assert all("higher = harder" in c.comment for c in scores)


def test_ids_take_the_types_of_the_input() -> None:
    types = {c.name: column_type(c, "string", "bigint") for c in TABLES["decisions"]}
    assert types["session_id"] == types["covered_by"] == "string"
    assert types["shared_items"] == "array<bigint>"
