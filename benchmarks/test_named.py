"""Any other dataset of ms-vlmeval, or a table of your own, named in --vlm-data.

    pytest --vlm-model=NAME --vlm-data=MMMB_en,my.tsv benchmarks/

`pytest --vlm-list` lists the names. A collection (MMMB) stands for its datasets.
"""

from __future__ import annotations

from pytest_vlmeval import Benchmark


class TestNamed(Benchmark):
    """The datasets of --vlm-data that no other selected benchmark has."""

    datasets = ("*",)
