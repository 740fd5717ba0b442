"""Video-MME: multiple choice about videos of seconds to an hour.

Eight frames of each video are sent; --vlm-nframe, --vlm-fps and --vlm-video-url change
that.

Fu et al., Video-MME, CVPR 2025, arXiv 2405.21075.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.video
@pytest.mark.multiple_choice
class TestVideoMME(Benchmark):
    """900 videos, 2,700 questions."""

    datasets = ("Video-MME",)
