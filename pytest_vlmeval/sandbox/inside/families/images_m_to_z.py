"""Classes of images and texts from the letter M on, scored so or refused.

How a class is added is in `general.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pytest_vlmeval.sandbox.inside.families.family import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

ROWS: Mapping[str, Family] = {}
REFUSED: Mapping[str, str] = {}
