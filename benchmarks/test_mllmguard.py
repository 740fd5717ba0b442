"""MLLMGuard: answers to unsafe images and requests.

Gu et al., MLLMGuard, NeurIPS 2024, arXiv 2406.07594. It has no reference answers:
the answers are collected for its authors' own judges.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMLLMGuard(Benchmark):
    """The desensitised public part."""

    datasets = ("MLLMGuard_DS",)
    unscored = "leave out"
