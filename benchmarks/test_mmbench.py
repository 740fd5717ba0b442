"""MMBench: perception and reasoning, with each question asked in all rotations.

Liu et al., MMBench: Is Your Multi-modal Model an All-around Player?, ECCV 2024,
arXiv 2307.06281. A question counts only if it is answered right in every rotation of
its options. V11 is its cleaned version; the test splits have no public answers.
CCBench asks about Chinese culture in the same way.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.core
class TestMMBenchV11Dev(Benchmark):
    """The English dev split of V11, which is usually reported."""

    datasets = ("MMBench_DEV_EN_V11",)


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMMBenchV11(Benchmark):
    """The other splits of V11 in English."""

    datasets = ("MMBench_TEST_EN_V11", "MMBench_V11")
    unscored = "leave out"


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.chinese
class TestMMBenchV11Chinese(Benchmark):
    """V11 in Chinese."""

    datasets = ("MMBench_DEV_CN_V11", "MMBench_TEST_CN_V11", "MMBench_CN_V11")
    unscored = "leave out"


@pytest.mark.image
@pytest.mark.multiple_choice
class TestMMBench(Benchmark):
    """The first version in English."""

    datasets = ("MMBench_DEV_EN", "MMBench_TEST_EN", "MMBench")
    unscored = "leave out"


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.chinese
class TestMMBenchChinese(Benchmark):
    """The first version in Chinese."""

    datasets = ("MMBench_DEV_CN", "MMBench_TEST_CN", "MMBench_CN")
    unscored = "leave out"


@pytest.mark.image
@pytest.mark.multiple_choice
@pytest.mark.chinese
class TestCCBench(Benchmark):
    """Images of Chinese culture, with Chinese questions."""

    datasets = ("CCBench",)
