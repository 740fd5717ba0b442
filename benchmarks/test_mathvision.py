"""MATH-Vision: 3,040 problems of mathematics competitions, each with an image.

Wang et al., Measuring Multimodal Mathematical Reasoning with MATH-Vision Dataset,
NeurIPS 2024, arXiv 2402.14804. MathVision_MINI is its testmini split, 304 problems.
Without a judge, an answer counts only if it matches the reference exactly.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.math
class TestMathVision(Benchmark):
    """Multiple-choice and open questions."""

    datasets = ("MathVision_MINI", "MathVision")
