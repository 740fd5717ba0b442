"""MMStar: 1,500 questions that cannot be answered without the image.

Chen et al., Are We on the Right Way for Evaluating Large Vision-Language Models?,
NeurIPS 2024, arXiv 2403.20330.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.core
class TestMMStar(Benchmark):
    """Six abilities, 250 questions each."""

    datasets = ("MMStar",)
