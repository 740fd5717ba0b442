"""OCR-VQA: questions about book covers, answered by reading them.

Mishra et al., OCR-VQA: Visual Question Answering by Reading Text in Images, ICDAR 2019.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
class TestOCRVQA(Benchmark):
    """Titles, authors, genres; TESTCORE is a subset of TEST."""

    datasets = ("OCRVQA_TESTCORE", "OCRVQA_TEST")
