"""docs/reports.md tells the truth: its outcomes and files exist."""

from __future__ import annotations

import re
from pathlib import Path

from pytest_vlmeval.reports.export import load_schema
from pytest_vlmeval.reports.summary import OUTCOMES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")


def test_all_outcomes_are_explained() -> None:
    table = PAGE.partition("| outcome | meaning |")[2].partition("##")[0]
    assert set(re.findall(r"`(\w+)`", table)) == set(OUTCOMES)
    names = load_schema()["properties"]["datasets"]["items"]["properties"]["outcomes"]
    assert set(names["propertyNames"]["enum"]) == set(OUTCOMES)


def test_files_exist() -> None:
    for path in re.findall(r"pytest_vlmeval/[\w./]+", PAGE):
        assert (ROOT / path).is_file()
