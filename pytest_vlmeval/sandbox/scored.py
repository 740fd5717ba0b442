"""The classes of ms-vlmeval whose answers can be scored: those with an adapter.

The adapters themselves, `inside/families/`, need what only the sandbox has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo

SCORED = frozenset(
    {
        "ImageCaptionDataset",
        "ImageMCQDataset",
        "ImageVQADataset",
        "ImageYORNDataset",
        "LLaVABench",
        "MMDUDataset",
        "MMBenchVideo",
        "MMLongBench",
        "MMMUDataset",
        "MMVet",
        "MTVQADataset",
        "MathVision",
        "MathVista",
        "OCRBench",
        "VCRDataset",
        "VideoMME",
    }
)


def is_scored(info: DatasetInfo) -> bool:
    """Whether there is an adapter for the class of a dataset."""
    return info.class_name in SCORED
