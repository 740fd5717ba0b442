"""HallusionBench: yes/no questions that expose hallucination and visual illusion.

Guan et al., HallusionBench, CVPR 2024, arXiv 2310.14566. The score is the mean of the
accuracies by question, by figure and by pair.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.yes_no
@pytest.mark.core
class TestHallusionBench(Benchmark):
    """Original and edited figures."""

    datasets = ("HallusionBench",)
