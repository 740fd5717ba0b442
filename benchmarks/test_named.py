"""Any other dataset of ms-vlmeval, or a table of your own, named in --vlm-data.

    pytest --vlm-model=NAME --vlm-data=MMMB_en,my.tsv benchmarks/

`pytest --vlm-list` has the names. A collection (MMMB) stands for its datasets.
"""

from __future__ import annotations

from pytest_vlmeval import Benchmark


class TestNamed(Benchmark):
    """What --vlm-data names and no other selected benchmark has."""

    datasets = ("*",)
