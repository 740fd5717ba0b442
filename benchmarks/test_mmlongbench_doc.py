"""MMLongBench-Doc: questions over long PDF documents, graded by a judge.

Ma et al., MMLongBench-Doc, NeurIPS 2024, arXiv 2407.01523.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.document
@pytest.mark.needs_judge
class TestMMLongBenchDoc(Benchmark):
    """135 documents of 47 pages on average."""

    datasets = ("MMLongBench_DOC",)
