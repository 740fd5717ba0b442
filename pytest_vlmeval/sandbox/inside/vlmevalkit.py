"""The scoring of VLMEvalKit, where it differs from that of ms-vlmeval 0.0.20.

ms-vlmeval is a fork; upstream moved on. Of what scores the datasets of FAMILIES two
things changed until records.VLMEVALKIT_COMMIT, and `--vlm-scoring=vlmevalkit` has
them: how an option is found in a sentence, and how many tokens MMVet's judge has.
`tests/support/vlmevalkit_corpus.py` lists all functions that differ, and records what
VLMEvalKit itself gives.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import TYPE_CHECKING, Any

from pytest_vlmeval.sandbox.inside.job import NO_REPLY

if TYPE_CHECKING:
    from collections.abc import Mapping

# The classes whose scoring differs.
CLASSES = {"ImageMCQDataset", "MMMUDataset", "MMVet", "MathVision", "MathVista"}
# Of MMVet's judge; 3 in ms-vlmeval (dataset/image_vqa.py:2061).
MMVET_TOKENS = 2048
# There is no end of a word behind the letter: "the answer is a cat" says A, and "the
# answer is blue" B.
_STATED = re.compile(r"answer\s+is\s+\**(?P<letter>[A-D])", re.IGNORECASE)


def can_infer(answer: object, choices: dict[str, Any]) -> object:
    """Read an option as utils/matching_util.py does: by letter, sentence, or text.

    Gives "Z" for a refusal and False for no option, as `can_infer` of ms-vlmeval.
    """
    rules: Any = import_module("vlmeval.utils.matching_util")
    said = str(answer)
    return (
        rules.can_infer_option(said, choices)
        or _stated(said, choices)
        or rules.can_infer_text(said, choices)
    )


def _stated(said: str, choices: Mapping[str, object]) -> str | None:
    """Read the option that the first "answer is" names."""
    found = _STATED.search(said)
    if found is None or NO_REPLY.rstrip(".") in said:
        return None
    letter = found["letter"].upper()
    return letter if letter in choices else None
