"""Why a dataset cannot be scored, by its class."""

from __future__ import annotations

import pytest

from pytest_vlmeval.datasets import unscored
from pytest_vlmeval.records import DatasetInfo


def of_class(class_name: str) -> DatasetInfo:
    """Describe a dataset of a class."""
    return DatasetInfo(name="Some", class_name=class_name, module="some", kind="vqa")


def test_a_class_is_refused_for_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unscored, "REFUSED", {"MUIRDataset": "it hears sounds"})
    info = of_class("MUIRDataset")
    assert unscored.is_refused(info)
    assert not unscored.is_scored(info)
    assert unscored.why_no_adapter(info) == "it hears sounds"


def test_a_class_without_a_row_is_not_scored_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for table in ("FAMILIES", "REFUSED"):
        monkeypatch.setattr(unscored, table, {})
    info = of_class("MUIRDataset")
    assert not unscored.is_refused(info)
    assert unscored.why_no_adapter(info) == (
        "the scoring of ms-vlmeval's MUIRDataset cannot be used here yet"
    )


def test_a_class_of_another_version_is_scored_unchecked() -> None:
    info = of_class("FromAnotherVersion")
    assert unscored.why_no_adapter(info) is None
    assert unscored.needs_none(info)
    assert not unscored.needs_none(of_class("ImageMCQDataset"))
