"""MMMU: college exam questions of 30 subjects, with images among the text.

Yue et al., MMMU, CVPR 2024, arXiv 2311.16502. The test split has no public answers.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.core
class TestMMMU(Benchmark):
    """Dev and validation splits; the score is that of validation."""

    datasets = ("MMMU_DEV_VAL",)


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMMMUTest(Benchmark):
    """The test split, which only the official server scores."""

    datasets = ("MMMU_TEST",)
    unscored = "leave out"
