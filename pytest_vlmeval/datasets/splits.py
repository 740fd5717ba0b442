"""Which split of a prepared dataset each of its samples is of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.sandbox.rows import FILE, read_texts

if TYPE_CHECKING:
    from pytest_vlmeval.records import PreparedDataset


def read_splits(prepared: PreparedDataset) -> dict[str, str]:
    """Give the split of each sample; empty where the dataset has none."""
    texts = read_texts(prepared.folder / FILE, ("index", "split"))
    if "split" not in texts:
        return {}
    pairs = zip(texts["index"], texts["split"], strict=True)
    return {index: split for index, split in pairs if split}
