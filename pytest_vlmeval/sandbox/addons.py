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
# By ms-vlmeval's class: what its scoring (captions, vcr) or its prompts (documents)
# import; all video datasets have one in common.
ADDONS = {
    "ImageCaptionDataset": frozenset({"captions"}),
    "VCRDataset": frozenset({"vcr"}),
    "MMLongBench": frozenset({"documents"}),
    "DUDE": frozenset({"documents"}),
}


def addons_for(info: DatasetInfo) -> frozenset[str]:
    """Name the add-ons that a dataset needs, most often none."""
    if info.modality == "video":
        return VIDEO
    return ADDONS.get(info.class_name, LIGHT)


def read_requirements(addons: frozenset[str]) -> str:
    """Give the pins of the light environment followed by those of the add-ons."""
    names = ["", *(f"-{name}" for name in sorted(addons))]
    files = [Path(__file__).with_name(f"requirements{name}.txt") for name in names]
    return "".join(file.read_text(encoding="utf-8") for file in files)


def digest_of_all() -> str:
    """Give a short hash that changes with the pins of any add-on."""
    pins = read_requirements(VIDEO.union(*ADDONS.values()))
    return hashlib.sha256(pins.encode()).hexdigest()[:12]
