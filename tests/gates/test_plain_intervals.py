"""Wilson's interval of independent samples: scipy's numbers, without scipy."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from pytest_vlmeval.gates.statistics import Proportion

WITHOUT_SCIPY = """
import sys
import numpy as np
from pytest_vlmeval.gates import measures
from pytest_vlmeval.run import gating
share = measures.Proportion(
    correct=np.array([1.0, 0.0, 1.0]), sizes=np.ones(3), scale=100, level=0.95
)
print(share.interval.method, "scipy" in sys.modules)
print(share.p_below(90) > 0, "scipy" in sys.modules)
"""


@pytest.mark.parametrize("level", [0.9, 0.95, 0.995])
@pytest.mark.parametrize(
    ("right", "count"), [(0, 7), (7, 7), (1, 2), (3, 10), (870, 1_000), (1, 30_000)]
)
def test_bounds_are_those_of_scipy(right: int, count: int, level: float) -> None:
    share = Proportion(
        correct=np.repeat([1.0, 0.0], [right, count - right]),
        sizes=np.ones(count),
        scale=1,
        level=level,
    )
    wanted = stats.binomtest(right, count).proportion_ci(2 * level - 1, "wilson")
    assert share.interval.low == pytest.approx(wanted.low, abs=1e-14)
    assert share.interval.high == pytest.approx(wanted.high, abs=1e-14)


def test_an_interval_alone_imports_no_scipy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_SCIPY], capture_output=True, text=True
    )
    assert done.stdout.splitlines() == ["Wilson False", "True True"], done.stderr
