"""OCRBench: 1,000 questions of text recognition, in five groups.

Liu et al., OCRBench: On the Hidden Mystery of OCR in Large Multimodal Models, 2023,
arXiv 2305.07895.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
@pytest.mark.core
class TestOCRBench(Benchmark):
    """Text, scenes, documents, key information, handwritten formulas."""

    datasets = ("OCRBench",)
