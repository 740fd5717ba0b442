"""MM-Vet: 218 questions that need several abilities together, graded by a judge.

Yu et al., MM-Vet, ICML 2024, arXiv 2308.02490.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.needs_judge
@pytest.mark.core
class TestMMVet(Benchmark):
    """Recognition, reading, knowledge, language, space, mathematics."""

    datasets = ("MMVet",)
