r"""How much performance the kept sessions carry: kNN Recall@20 and MRR@20 of pruned tables, side by side.

    python benchmarks/recall.py --train sessions.parquet --test test.parquet \
        --kept graph=workspace/pruned --kept random=workspace/random

Two training-free next-item models, full ranking over all items, ties counted against the target, a target
that the kept data lack counted as a miss:

* item-kNN: cosine of co-occurrence within sessions, from the last item (Sarwar et al., 2001);
* session-kNN: the 100 nearest kept sessions by cosine with the prefix (Jannach & Ludewig, 2017).
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from deltalake import DeltaTable
from scipy import sparse

LOG = logging.getLogger("recall")
AT, NEIGHBOURS = 20, 100
Tests = list[tuple[list[str], str]]


def read(place: str) -> pd.DataFrame:
    """A Delta or Parquet table of sessions or events as session_id, items (in time order)."""
    path = Path(place)
    table = DeltaTable(place).to_pandas() if (path / "_delta_log").is_dir() else pd.read_parquet(path)
    if "items" not in table:
        table = table.sort_values(["session_id", "ts", "item_id"])
        table = table.groupby("session_id", sort=False)["item_id"].agg(list).rename("items").reset_index()
    table["items"] = [[str(i) for i in items] for items in table["items"]]
    return table


def prefixes(place: str, most: int) -> Tests:
    """Test cases (prefix, target): every proper prefix of a test session; a fixed sample of `most`."""
    table = pd.read_parquet(place)
    if "prefix" in table:
        cases = [([str(i) for i in p], str(t)) for p, t in zip(table["prefix"], table["target"], strict=True)]
    else:
        cases = [(s[:t], s[t]) for s in read(place)["items"] for t in range(1, len(s))]
    chosen = np.random.default_rng(0).permutation(len(cases))[:most]
    return [cases[i] for i in chosen]


def evaluate(sessions: Sequence[Sequence[str]], tests: Tests) -> dict[str, float]:
    """Recall@20 and MRR@20 of both models trained on some sessions, in percent."""
    names = sorted({i for s in sessions for i in s})
    index = {name: k for k, name in enumerate(names)}
    rows = np.repeat(np.arange(len(sessions)), [len(s) for s in sessions])
    columns = np.array([index[i] for s in sessions for i in s])
    held = sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), (len(sessions), len(names)))
    held.data[:] = 1.0  # an item clicked twice is held once
    support = np.asarray(held.sum(axis=0)).ravel()
    damped = sparse.diags(1 / np.sqrt(support + 20))  # the usual regularisation of rare items
    similar = (damped @ (held.T @ held) @ damped).tocsr()
    unit = sparse.diags(1 / np.sqrt(np.asarray(held.sum(axis=1)).ravel())) @ held
    ranks: dict[str, list[float]] = {"item": [], "session": []}
    for prefix, target in tests:
        known = [index[i] for i in prefix if i in index]
        if target not in index or not known:
            ranks["item"].append(np.inf)
            ranks["session"].append(np.inf)
            continue
        t = index[target]
        last = np.asarray(similar[known[-1]].todense()).ravel()
        ranks["item"].append(_rank(last, t))
        # Later clicks of the prefix weigh more, as in V-SkNN's linear decay.
        weight = np.zeros(len(names))
        for place, item in enumerate(known, 1):
            weight[item] = place / len(known)
        near = np.asarray(unit @ weight).ravel()
        best = np.argpartition(-near, min(NEIGHBOURS, len(near) - 1))[:NEIGHBOURS]
        ranks["session"].append(_rank(np.asarray(near[best] @ held[best]).ravel(), t))
    out = {}
    for model, found in ranks.items():
        place = np.array(found)
        out[f"{model}-kNN Recall@{AT}"] = 100 * float((place <= AT).mean())
        out[f"{model}-kNN MRR@{AT}"] = 100 * float(np.where(place <= AT, 1 / place, 0.0).mean())
    return out


def _rank(scores: np.ndarray, target: int) -> float:
    """Place of the target, ties before it; without any evidence it is not found."""
    mine = scores[target]
    return np.inf if mine <= 0 else float((scores >= mine).sum())


def main() -> None:
    """Evaluate the full data, a random tenth, and each kept table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--train", required=True, help="the full training sessions or events")
    parser.add_argument("--test", required=True, help="test events, or rows of prefix and target")
    parser.add_argument("--kept", action="append", default=[], metavar="NAME=TABLE")
    parser.add_argument("--most", type=int, default=10_000, help="test cases at most")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    tests = prefixes(arguments.test, arguments.most)
    LOG.info("%d test cases", len(tests))
    for pair in ["full=" + arguments.train, *arguments.kept]:
        name, _, place = pair.partition("=")
        sessions = read(place)["items"].tolist()
        figures = evaluate(sessions, tests)
        clicks, items = sum(map(len, sessions)), len({i for s in sessions for i in s})
        LOG.info(
            "%-10s %8d sessions %9d clicks %7d items  %s",
            name,
            len(sessions),
            clicks,
            items,
            "  ".join(f"{k} {v:.1f}" for k, v in figures.items()),
        )


if __name__ == "__main__":
    main()
