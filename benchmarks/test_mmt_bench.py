"""MMT-Bench: 162 subtasks in 32 groups, from recognition to planning.

Ying et al., MMT-Bench, ICML 2024, arXiv 2404.16006. Datasets whose names end
in MI send all images of a question, the others one image that combines them.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMMTBench(Benchmark):
    """The validation split, and all questions."""

    datasets = (
        "MMT-Bench_VAL",
        "MMT-Bench_VAL_MI",
        "MMT-Bench_ALL",
        "MMT-Bench_ALL_MI",
    )
    unscored = "leave out"
