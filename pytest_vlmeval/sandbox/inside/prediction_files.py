"""What becomes of answers in the file through which upstream hands them to its scoring.

ms-vlmeval writes a workbook and reads it back (smp/file.py:166): `=B` comes back as 0,
`None`, `NA` and `null` as a missing cell, a column of numbers as numbers, and no text
longer than a cell. Its published scores have that in them.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pandas as pd

from pytest_vlmeval.sandbox.inside.job import NO_REPLY

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LONGEST_CELL = 32_767
# Texts that a workbook or pandas may take for something else: missing cells, formulas,
# addresses, and what XML has no character for.
_MISSING = re.compile(r"[#<]?[-+]?(?:n\.?/?a\.?n?|null|none|1\.#.*|n/a n/a)>?", re.I)
_OTHER = re.compile(
    r"\{?=|[\x00-\x08\x0b-\x1f\ufffe\uffff]|_x[0-9A-Fa-f]{4}_"
    r"|(?:https?|ftps?)://|(?:mailto|internal|external|file):"
)


def through_a_file(texts: Sequence[str], path: Path, *, formulas: bool) -> list[str]:
    """Return answers as upstream's scoring reads them; empty ones stay as they are.

    With `formulas` a text that begins like one is one, as in ms-vlmeval 0.0.20.
    """
    if not any(map(_may_change, texts)) and not all(
        map(_is_value, filter(None, texts))
    ):
        return list(texts)
    # An empty answer is no part of what is changed.
    written = pd.DataFrame(
        {
            "index": range(len(texts)),
            "prediction": [text or NO_REPLY for text in texts],
        }
    )
    options = {} if formulas else {"strings_to_formulas": False}
    with pd.ExcelWriter(
        path, engine="xlsxwriter", engine_kwargs={"options": options}
    ) as writer:
        written.to_excel(writer, index=False)
    read = pd.read_excel(path)["prediction"]
    path.unlink()
    return [str(value) if text else "" for text, value in zip(texts, read, strict=True)]


def _may_change(text: str) -> bool:
    return (
        len(text) > LONGEST_CELL
        or _OTHER.search(text) is not None
        or _MISSING.fullmatch(text) is not None
    )


def _is_value(text: str) -> bool:
    """Return whether a column of such texts is read as numbers, or as truth values."""
    if text.lower() in ("true", "false"):
        return True
    try:
        float(text)
    except ValueError:
        return False
    return True
