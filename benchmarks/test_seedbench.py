"""SEED-Bench: multiple choice over images, several images, charts and maps.

Li et al., SEED-Bench, CVPR 2024, arXiv 2307.16125; SEED-Bench-2, arXiv 2311.17092;
SEED-Bench-2-Plus (text-rich images), arXiv 2404.16790.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestSEEDBench(Benchmark):
    """Single images, several images, and text-rich images."""

    datasets = ("SEEDBench_IMG", "SEEDBench2", "SEEDBench2_Plus")
