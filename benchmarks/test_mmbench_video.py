"""MMBench-Video: open questions about long web videos, graded by a judge.

Eight frames of each video are sent; --vlm-nframe, --vlm-fps and --vlm-video-url change
that.

Fang et al., MMBench-Video, NeurIPS 2024, arXiv 2406.14515.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.video
@pytest.mark.vqa
@pytest.mark.needs_judge
class TestMMBenchVideo(Benchmark):
    """609 videos in 16 categories."""

    datasets = ("MMBench-Video",)
