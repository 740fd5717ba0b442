"""RealWorldQA: understanding of space in photographs, many taken from cars.

xAI, published with Grok-1.5 Vision, April 2024; 765 questions.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestRealWorldQA(Benchmark):
    """Photographs of the real world."""

    datasets = ("RealWorldQA",)
