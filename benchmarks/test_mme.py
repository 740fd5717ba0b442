"""MME: yes/no questions in pairs, ten tasks of perception and four of cognition.

Fu et al., MME, 2023, arXiv 2306.13394. A pair of right answers earns extra points; the
maximum is 2,800.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.yes_no
class TestMME(Benchmark):
    """Each image has one question to affirm and one to deny."""

    datasets = ("MME",)
