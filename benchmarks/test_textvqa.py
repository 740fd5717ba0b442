"""TextVQA: questions that need the text in a photograph.

Singh et al., Towards VQA Models That Can Read, CVPR 2019, arXiv 1904.08920. An answer
is compared with those of ten people.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
class TestTextVQA(Benchmark):
    """The validation split."""

    datasets = ("TextVQA_VAL",)
