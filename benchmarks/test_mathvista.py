"""MathVista: mathematics in figures, charts, puzzles and papers.

Lu et al., MathVista, ICLR 2024, arXiv 2310.02255. Without a judge, an answer counts
only if it matches the reference exactly.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.math
@pytest.mark.core
class TestMathVista(Benchmark):
    """The testmini split, 1,000 questions."""

    datasets = ("MathVista_MINI",)
