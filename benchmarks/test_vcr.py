"""VCR: restore text that is partly covered in an image.

Zhang et al., VCR: Visual Caption Restoration, ICLR 2025, arXiv 2406.06462. HARD covers
more of each letter than EASY; the numbers in the names count the samples.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
class TestVCREnglish(Benchmark):
    """English captions."""

    datasets = (
        "VCR_EN_EASY_100",
        "VCR_EN_EASY_500",
        "VCR_EN_EASY_ALL",
        "VCR_EN_HARD_100",
        "VCR_EN_HARD_500",
        "VCR_EN_HARD_ALL",
    )


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
@pytest.mark.chinese
class TestVCRChinese(Benchmark):
    """Chinese captions."""

    datasets = (
        "VCR_ZH_EASY_100",
        "VCR_ZH_EASY_500",
        "VCR_ZH_EASY_ALL",
        "VCR_ZH_HARD_100",
        "VCR_ZH_HARD_500",
        "VCR_ZH_HARD_ALL",
    )
