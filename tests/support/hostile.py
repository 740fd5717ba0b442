"""Texts that a hostile model, judge or dataset may hold, made anew from a seed.

Each that runs anywhere as code, or is opened as a file, leaves the marker. No text
here is the right answer to anything.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.support.hostile_code import (
    dunder_chains,
    format_strings,
    formulas,
    imports,
    paths,
    structures,
)
from tests.support.hostile_shapes import (
    controls,
    deep_nesting,
    directions,
    escapes,
    huge_numbers,
    long_texts,
    noise,
    regex_bombs,
    surrogates,
)

LONG_BYTES = 10 * 2**20
SEED = 9


class Hostile(NamedTuple):
    """One text and the kind of harm it is meant to do."""

    kind: str
    text: str


def corpus(marker: Path, *, long_bytes: int = LONG_BYTES) -> list[Hostile]:
    """Give all texts, in an order that does not depend on the process."""
    chance = random.Random(SEED)
    kinds: dict[str, Callable[[Path, random.Random], Sequence[str]]] = {
        "import": imports,
        "dunder chain": dunder_chains,
        "huge number": huge_numbers,
        "deep nesting": deep_nesting,
        "regex bomb": regex_bombs,
        "format string": format_strings,
        "path": paths,
        "control character": controls,
        "terminal escape": escapes,
        "lone surrogate": surrogates,
        "direction mark": directions,
        "formula": formulas,
        "structure": structures,
        "noise": noise,
    }
    texts = [
        Hostile(kind, text)
        for kind, make in kinds.items()
        for text in make(marker, chance)
    ]
    return [*texts, *(Hostile("long", text) for text in long_texts(long_bytes))]
