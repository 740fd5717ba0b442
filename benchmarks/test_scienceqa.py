"""ScienceQA: questions of school lessons that come with an image.

Lu et al., Learn to Explain, NeurIPS 2022, arXiv 2209.09513.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestScienceQA(Benchmark):
    """The questions with images, validation and test."""

    datasets = ("ScienceQA_VAL", "ScienceQA_TEST")
