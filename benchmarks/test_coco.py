"""COCO captions: describe a photograph, compared with the captions of five people.

Chen et al., Microsoft COCO Captions, 2015, arXiv 1504.00325. All captions are scored
together, by BLEU, ROUGE-L and CIDEr.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.caption
class TestCOCO(Benchmark):
    """5,000 photographs of the validation split."""

    datasets = ("COCO_VAL",)
