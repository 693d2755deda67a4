"""What can be set: of each job one model, which is its YAML file, its environment, its flags and their help.

`prune`, `train` and `explain` are the jobs' models, `groups` and `fields` what several of them have, `rules`
what holds between settings; `sources`, `flags`, `file` and `options` read them, `document` writes them down.
"""

from prune_lib.settings.groups import DemoSettings, PropagationSettings, SamplingSettings, SuspectsSettings
from prune_lib.settings.prune import PruneSettings, load_settings, settings_hash
from prune_lib.settings.train import ExpertsSettings

__all__ = [
    "DemoSettings",
    "ExpertsSettings",
    "PropagationSettings",
    "PruneSettings",
    "SamplingSettings",
    "SuspectsSettings",
    "load_settings",
    "settings_hash",
]
