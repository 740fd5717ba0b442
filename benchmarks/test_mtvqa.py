"""MTVQA: text in images, asked and answered in nine languages.

Tang et al., MTVQA, 2024, arXiv 2405.11985.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
class TestMTVQA(Benchmark):
    """Questions in the language of the image's text."""

    datasets = ("MTVQA_TEST",)
