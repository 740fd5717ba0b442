"""COCO captions: describe a photograph, compared with what five people wrote.

Chen et al., Microsoft COCO Captions, 2015, arXiv 1504.00325. Scored as a whole, by
BLEU, ROUGE-L and CIDEr.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.caption
class TestCOCO(Benchmark):
    """5,000 photographs of the validation split."""

    datasets = ("COCO_VAL",)
