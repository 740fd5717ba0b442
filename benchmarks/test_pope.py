"""POPE: is an object in the image? A probe for object hallucination.

Li et al., Evaluating Object Hallucination in Large Vision-Language Models, EMNLP 2023,
arXiv 2305.10355. The score is the F1.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.yes_no
class TestPOPE(Benchmark):
    """Random, popular and adversarial objects."""

    datasets = ("POPE",)
