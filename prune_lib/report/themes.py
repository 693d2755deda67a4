"""Colours of the report by role, in the light and in the dark.

Experts and clusters have the hues of Okabe and Ito (2008), which colour-blind readers tell apart; what was
kept is blue and what was there before grey, wherever they occur.
"""

from __future__ import annotations

__all__ = ["THEMES"]

_LIGHT = {
    "@paper": "#ffffff",
    "@ink": "#1c2430",
    "@muted": "#5a6675",
    "@line": "#e3e7ec",
    "@all": "#9aa5b4",
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
    "@covered": "#c9b79c",
    "@bot": "#a3324a",
    "@noise": "#d98c5f",
    "@budget": "#8d99a8",
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
_HUES = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6bb1", "#999933")
_CLUSTERS = {f"@cluster{number}": hue for number, hue in enumerate(_HUES)}

#: Colours by theme and role.
THEMES = {"light": {**_LIGHT, **_CLUSTERS}, "dark": {**_DARK, **_CLUSTERS}}
