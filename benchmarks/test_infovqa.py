"""InfographicVQA: questions about infographics.

Mathew et al., InfographicVQA, WACV 2022, arXiv 2104.12756. Scored by edit distance
(ANLS); the test split has no public answers.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
@pytest.mark.document
class TestInfoVQA(Benchmark):
    """Layout, text and graphics together."""

    datasets = ("InfoVQA_VAL", "InfoVQA_TEST")
    unscored = "leave out"
