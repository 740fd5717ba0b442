"""LLaVA-Bench (in the wild): 60 open questions, graded against a reference by a judge.

Liu et al., Visual Instruction Tuning, NeurIPS 2023, arXiv 2304.08485.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.needs_judge
class TestLLaVABench(Benchmark):
    """Conversation, detail and reasoning."""

    datasets = ("LLaVABench",)
