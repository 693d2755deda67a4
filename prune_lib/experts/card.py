"""The model card of a bundle: what the experts are, what they learnt from, how good and how fair they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prune_lib.experts.settings import EXPERTS, SPREADS

if TYPE_CHECKING:
    from prune_lib.experts.bundle import Bundle

__all__ = ["card_of", "overall"]

_LIKELIHOOD = "log_likelihood_"
#: Scores and columns in the order of reading; the files of a bundle sort their keys.
SCORES = (*EXPERTS, "mixture", "adjusted")
_COLUMNS = (
    *(f"loss_{kind}" for kind in EXPERTS),
    "loss_mixture",
    "adjusted",
    "disagreement",
    *(f"gate_{kind}" for kind in EXPERTS),
)
_AGREEMENT = "estimated_normaliser_spearman_"
_SIZES = ("sessions", "interactions", "items")
_WHAT = {"gnn": "SR-GNN", "rnn": "GRU4Rec", "transformer": "SASRec"}


def overall(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Held-out metrics of both folds as one.

    Args:
        metrics: by fold, as a bundle has them.

    Returns:
        log_likelihood_{name} of each expert, the uniform mixture and the gated one, and `spearman` by score:
        means over the folds, each by its held-out positions. Empty where nothing was held out.
    """
    folds = [fold for fold in metrics.values() if fold.get("held_out_positions")]

    def mean(values: list[float]) -> float:
        weights = [int(fold["held_out_positions"]) for fold in folds]
        return sum(v * w for v, w in zip(values, weights, strict=True)) / sum(weights)

    found: dict[str, Any] = {}
    if folds:
        for name in (n for n in folds[0] if n.startswith(_LIKELIHOOD)):
            found[name] = mean([fold[name] for fold in folds])
        # A bundle of an earlier version knows nothing of fairness.
        fair = [fold.get("fairness", {}).get("spearman") for fold in folds]
        if all(fair):
            found["spearman"] = {name: mean([of[name] for of in fair]) for name in SCORES}
    return found


def card_of(bundle: Bundle) -> str:
    """The card, in Markdown; a rendering of config.json and metrics.json, no part of the bundle's hash."""
    config, about = bundle.config, bundle.config["input"]
    found = overall(bundle.metrics)
    lines = [
        f"# Experts {bundle.version}",
        "",
        "Three frozen next-item models ("
        + ", ".join(f"`{kind}`: {_WHAT[kind]}" for kind in EXPERTS)
        + f"; width {config['dim']}) and a gate over them, for each of two folds of the sessions. They score "
        "how hard a session is to predict, each session by the fold that did not see it. They are no "
        "recommender: a few passes of a small network, chosen for a ranking of difficulty.",
        "",
        f"Trained on {about.get('source') or 'an input without a name'}: "
        + ", ".join(f"{about[what]:,} {what}" for what in _SIZES if what in about)
        + f". Of a longer session they learned the last {config['max_length']} clicks; they score it on "
        f"windows of {config['max_length']}, every click after its first. An item that is not among these is "
        "unknown, and no target.",
        "",
        "## How good",
        "",
        "Log-likelihood of the next item in sessions that neither experts nor gate were trained on, nats; "
        "higher is better.",
        "",
        "| | fold 0 | fold 1 | both |",
        "|---|---|---|---|",
    ]
    folds = list(bundle.metrics.values())
    for name in (*EXPERTS, "uniform", "gate"):
        key = f"{_LIKELIHOOD}{name}"
        if key in found:
            cells = [f"{fold[key]:.3f}" if key in fold else "–" for fold in folds]
            label = {"uniform": "uniform mixture", "gate": "gated mixture"}.get(name, name)
            lines.append(f"| {label} | {' | '.join(cells)} | {found[key]:.3f} |")
    agreement = {
        name: ", ".join(f"{fold[_AGREEMENT + name]:.3f}" for fold in folds if _AGREEMENT + name in fold)
        for name in ("adjusted", *SPREADS)
    }
    if agreement["adjusted"]:
        of_spreads = [f"of {name} {agreement[name]}" for name in SPREADS if agreement[name]]
        lines += [
            "",
            "Large inputs are scored by an estimated normaliser. Spearman of the adjusted loss of a held-out "
            f"prediction with that by the exact one: {'; '.join([agreement['adjusted'], *of_spreads])}.",
        ]
    if "spearman" in found:
        lines += [
            "",
            "## How fair",
            "",
            "Spearman's correlation of a prediction's loss with the popularity of its target: 0 is fair, "
            "below 0 rare items are harder for being rare. `adjusted` is the default score: the mixture's "
            "loss, less the mean of the target's popularity band.",
            "",
            "| " + " | ".join(found["spearman"]) + " |",
            "|" + "---|" * len(found["spearman"]),
            "| " + " | ".join(f"{value:+.2f}" for value in found["spearman"].values()) + " |",
        ]
        for number, fold in enumerate(folds):
            lines += _deciles(number, fold.get("fairness", {}).get("deciles", []))
    settings = ", ".join(f"{key} {value}" for key, value in config["settings"].items())
    versions = ", ".join(f"{name} {version}" for name, version in config["versions"].items())
    return "\n".join([*lines, "", "## Settings", "", f"{settings}. {versions}.", ""])


def _deciles(number: int, deciles: list[Mapping[str, Any]]) -> list[str]:
    """A table of one fold, rarest targets first."""
    if not deciles:
        return []
    lines = [
        "",
        f"Fold {number}, by popularity of the target (sessions that hold it):",
        "",
        "| sessions | positions | " + " | ".join(name.replace("_", " ") for name in _COLUMNS) + " |",
        "|---|---|" + "---|" * len(_COLUMNS),
    ]
    for row in deciles:
        cells = [f"{row['from']:,}–{row['to']:,}", f"{row['positions']:,}"]
        lines.append("| " + " | ".join([*cells, *(f"{row[name]:.2f}" for name in _COLUMNS)]) + " |")
    return lines
