"""MMT-Bench: 162 subtasks in 32 groups, from recognition to planning.

Ying et al., MMT-Bench, ICML 2024, arXiv 2404.16006. The names ending in MI give a
question all of its images, the others one image made of them.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMMTBench(Benchmark):
    """Validation, and all with it."""

    datasets = (
        "MMT-Bench_VAL",
        "MMT-Bench_VAL_MI",
        "MMT-Bench_ALL",
        "MMT-Bench_ALL_MI",
    )
    unscored = "leave out"
