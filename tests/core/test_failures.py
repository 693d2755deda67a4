"""What is said of a failure is true."""

from __future__ import annotations

import re
from pathlib import Path

from prune_lib.terminal.failures import _EXTRAS


def test_the_extra_that_a_missing_package_is_said_to_be_in_has_it() -> None:
    """By what setup.py lists; scikit-learn came to be in another one."""
    names = {"delta": "delta-spark", "graphframes": "graphframes-py", "sklearn": "scikit-learn"}
    names |= {"vl_convert": "vl-convert-python", "umap": "umap-learn", "ir_measures": "ir-measures"}
    listed = (Path(__file__).resolve().parents[2] / "setup.py").read_text()
    for module, extra in _EXTRAS.items():
        (of_extra,) = re.findall(rf"^{extra.upper()} = (\[.*?\])$", listed, re.MULTILINE | re.DOTALL)
        assert re.search(rf'"{names.get(module, module)}[">=]', of_extra), module
