"""ChartQA: questions about charts, visual and logical.

Masry et al., ChartQA, Findings of ACL 2022, arXiv 2203.10244. Numbers may be off by
5 %.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
class TestChartQA(Benchmark):
    """Human and machine-made questions."""

    datasets = ("ChartQA_TEST",)
