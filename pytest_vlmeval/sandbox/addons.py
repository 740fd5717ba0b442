"""Packages that only some datasets need, kept out of the light environment.

Each add-on is a file `requirements-NAME.txt` of pins. The environment of a set of
add-ons holds the light one's packages too.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo

LIGHT = frozenset[str]()
VIDEO = frozenset({"video"})
HUB = frozenset({"hub"})
# By ms-vlmeval's class: what its scoring (captions, vcr), its prompts (documents,
# words) or its data (hub) need; all video datasets have one in common.
ADDONS = {
    "ImageCaptionDataset": frozenset({"captions"}),
    "VCRDataset": frozenset({"vcr"}),
    "MMLongBench": frozenset({"documents"}),
    "DUDE": frozenset({"documents"}),
    "SparBench": frozenset({"words"}),
    "MEGABench": VIDEO | HUB | {"cv2"},
    **dict.fromkeys(
        (
            "ERIQBench",
            "HiPhODataset",
            "MMHELIX",
            "MindCubeBench",
            "QSpatial",
            "RefSpatialBench",
            "RefSpatialDataset",
            "SCAM",
            "SGI_Bench_Deep_Research",
            "SGI_Bench_Dry_Experiment",
            "SGI_Bench_Experimental_Reasoning",
            "SGI_Bench_Idea_Generation",
            "SGI_Bench_Wet_Experiment",
            "SPBench",
            "SiteBenchImage",
            "StareBench",
            "VTCBench",
            "ViewSpatialBench",
        ),
        HUB,
    ),
}


def addons_for(info: DatasetInfo) -> frozenset[str]:
    """Name the add-ons that a dataset needs, most often none."""
    own = ADDONS.get(info.class_name, LIGHT)
    return VIDEO | own if info.modality == "video" else own


def read_requirements(addons: frozenset[str]) -> str:
    """Give the pins of the light environment followed by those of the add-ons.

    What several of them need is named once.
    """
    names = ["", *(f"-{name}" for name in sorted(addons))]
    files = [Path(__file__).with_name(f"requirements{name}.txt") for name in names]
    texts = [file.read_text(encoding="utf-8") for file in files]
    return "".join(dict.fromkeys("".join(texts).splitlines(keepends=True)))


def digest_of_all() -> str:
    """Give a short hash that changes with the pins of any add-on."""
    pins = read_requirements(VIDEO.union(*ADDONS.values()))
    return hashlib.sha256(pins.encode()).hexdigest()[:12]
