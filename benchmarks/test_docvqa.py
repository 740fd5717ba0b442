"""DocVQA: questions about scanned documents.

Mathew et al., DocVQA, WACV 2021, arXiv 2007.00398. Scored by edit distance (ANLS); the
test split has no public answers.
"""

from __future__ import annotations

import pytest

from pytest_vlmeval import Benchmark


@pytest.mark.image
@pytest.mark.vqa
@pytest.mark.ocr
@pytest.mark.document
class TestDocVQA(Benchmark):
    """Letters, forms, tables and reports."""

    datasets = ("DocVQA_VAL", "DocVQA_TEST")
    unscored = "leave out"
