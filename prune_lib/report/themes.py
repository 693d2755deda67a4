"""Colours of the report by role, in the light and in the dark.

Experts and clusters have the hues of Okabe and Ito (2008), which colour-blind readers tell apart; what was
kept is blue and what was there before grey, wherever they occur. Whatever is drawn has a contrast of 3 to 1
with the paper, as WCAG asks of graphics; on white some of the hues are darker for it.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["THEMES"]

_LIGHT = {
    "@paper": "#ffffff",
    "@ink": "#1c2430",
    "@muted": "#5a6675",
    "@line": "#e3e7ec",
    "@all": "#8593a6",
    "@kept": "#1f5fd0",
    "@pruned": "#c2703d",
    "@accent": "#d1490b",
    "@gnn": "#0072b2",
    "@rnn": "#d55e00",
    "@transformer": "#009e73",
    "@cold_item": "#0b3d91",
    "@new_pattern": "#1f5fd0",
    "@representative": "#5b95ee",
    "@floor": "#8a63d2",
    "@method": "#1f5fd0",
    "@duplicate": "#b0793a",
    "@covered": "#a48d63",
    "@bot": "#a3324a",
    "@noise": "#dd6f45",
    "@budget": "#748296",
    "@ramp": "viridis",
}
_DARK = {
    **_LIGHT,
    "@paper": "#14181f",
    "@ink": "#e6eaf0",
    "@muted": "#9eabbb",
    "@line": "#2e3743",
    "@all": "#76849a",
    "@kept": "#6ea3ff",
    "@pruned": "#e39a63",
    "@accent": "#ff9d5c",
    "@gnn": "#56b4e9",
    "@rnn": "#f0a24a",
    "@transformer": "#2fcf9f",
    "@cold_item": "#3f74e0",
    "@new_pattern": "#6ea3ff",
    "@representative": "#a5c6ff",
    "@floor": "#b69af0",
    "@method": "#6ea3ff",
    "@duplicate": "#d9a45f",
    "@covered": "#8d7f68",
    "@bot": "#e0637d",
    "@noise": "#f0ab82",
    "@budget": "#76849a",
}
# Two blues and two oranges: where the lighter one has to be darker on white, the darker one is, too.
_ON_WHITE = ("#005b99", "#c58500", "#009e73", "#cc79a7", "#2f97d2", "#b34700", "#8c6bb1", "#999933")
_ON_DARK = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#999933")


def _clusters(hues: Sequence[str]) -> dict[str, str]:
    return {f"@cluster{number}": hue for number, hue in enumerate(hues)}


#: Colours by theme and role.
THEMES = {"light": {**_LIGHT, **_clusters(_ON_WHITE)}, "dark": {**_DARK, **_clusters(_ON_DARK)}}
