"""MME: yes/no questions in pairs, ten tasks of perception and four of cognition.

Fu et al., MME, 2023, arXiv 2306.13394. A pair earns more than its halves; 2,800 points
are the maximum.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.yes_no
class TestMME(Benchmark):
    """One image, one question to affirm and one to deny."""

    datasets = ("MME",)
