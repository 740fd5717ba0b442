"""AI2D: questions about diagrams from school books.

Kembhavi et al., A Diagram Is Worth A Dozen Images, ECCV 2016, arXiv 1603.07396.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.core
class TestAI2D(Benchmark):
    """Diagrams with labels."""

    datasets = ("AI2D_TEST",)
