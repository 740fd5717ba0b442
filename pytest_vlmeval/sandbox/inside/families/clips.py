"""Classes of videos and of texts alone, scored by their own `evaluate` or refused.

How a class is added is in `general.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.sandbox.inside.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

# Spatial benchmarks that are scored alike (dataset/utils/spatial_bench/cal_scores.py).
SPATIAL = Family(metric="overall", addons=frozenset({"hub", "words"}))

ROWS: Mapping[str, Family] = {
    "DSRBench": SPATIAL,
    # What is said of a dimension without an answer is 0 (dataset/flames.py:128).
    "FlamesDataset": Family(metric="harmless_rate", judge="required", reference=""),
    "STIBench": SPATIAL,
    "VsiBench": SPATIAL,
    "VsiSuperCount": SPATIAL,
    "VsiSuperRecall": SPATIAL,
    "XSTestDataset": Family(metric="overall"),
}
REFUSED: Mapping[str, str] = {}
