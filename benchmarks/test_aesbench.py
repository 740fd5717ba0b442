"""AesBench: the perception and judgement of an image's aesthetics.

Huang et al., AesBench, 2024, arXiv 2401.08276. The leaderboard uses the test split,
more than 20 times the size of the validation split.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestAesBench(Benchmark):
    """Perception of aesthetics."""

    datasets = ("AesBench_VAL", "AesBench_TEST")
    unscored = "leave out"
