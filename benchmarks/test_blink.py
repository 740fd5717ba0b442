"""BLINK: visual perception that people solve within a blink.

Fu et al., BLINK, ECCV 2024, arXiv 2404.12390. Many questions have several images.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
class TestBLINK(Benchmark):
    """Depth, correspondence, reflectance and eleven more."""

    datasets = ("BLINK",)
