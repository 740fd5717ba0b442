"""Which datasets can be scored, and why the others cannot."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.sandbox.inside.families import FAMILIES, REFUSED

if TYPE_CHECKING:
    from pytest_vlmeval.records import DatasetInfo


def is_scored(info: DatasetInfo) -> bool:
    """Return whether the answers to a dataset of this class have a score.

    A class of another ms-vlmeval has one that nobody checked.
    """
    if is_refused(info):
        return False
    return info.class_name in FAMILIES or info.class_name not in known_classes()


def is_refused(info: DatasetInfo) -> bool:
    """Return whether a dataset is not scored for a reason of its class."""
    return info.class_name in REFUSED


@cache
def known_classes() -> frozenset[str]:
    """Return the classes of the ms-vlmeval that this package pins."""
    pinned = json.loads(CATALOG.read_text(encoding="utf-8"))
    return frozenset(each["class_name"] for each in pinned["datasets"])


def needs_none(info: DatasetInfo) -> bool:
    """Return whether a dataset is scored without reference answers in its rows.

    Of a class of another ms-vlmeval it is not known.
    """
    family = FAMILIES.get(info.class_name)
    if family is None:
        return bool(info.class_name) and info.class_name not in known_classes()
    return not family.reference


CATALOG = Path(__file__).with_name("catalog.json")
# What a benchmark does with its datasets that cannot be scored, see `Benchmark`.
Unscored = Literal["refuse", "leave out"]
NO_REFERENCES = "no reference answers"
# A name that pytest's -k takes as it is.
_PLAIN = re.compile(r"[\w.+-]+")


def why_no_adapter(info: DatasetInfo) -> str | None:
    """Explain why no answers to a dataset can be scored here; None if they can."""
    if is_scored(info):
        return None
    return REFUSED.get(
        info.class_name,
        f"the scoring of ms-vlmeval's {info.class_name} cannot be used here yet",
    )


def foresee(info: DatasetInfo) -> str | None:
    """Explain why a dataset cannot be scored, as far as that is known without its file.

    None for a collection, each of whose datasets has a reason of its own.
    """
    if info.members:
        return None
    why = why_no_adapter(info)
    return NO_REFERENCES if why is None and info.has_references is False else why


def explain_refusal(reasons: Mapping[str, str], *, call: bool = False) -> str:
    """Explain why datasets are not asked, and what to do; `call` for `evaluate()`."""
    names = list(reasons)
    one = len(names) == 1
    lines = [f"{name} cannot be scored: {why}." for name, why in reasons.items()]
    them = "it" if one else "them"
    out = f"Leave {them} out"
    asking = "mode='infer'" if call else "--vlm-mode=infer"
    if not call and all(_PLAIN.fullmatch(name) for name in names):
        terms = " and ".join(f"not {name}" for name in names)
        out += f" (-k '{terms}', or from --vlm-data)"
    lines.append(
        f"Nothing was asked. {out}, or ask {them} without a score by {asking}, which "
        f"writes the answers to a file. A benchmark may score {them} by a function of "
        "its own (docs/own-scoring.md)."
    )
    return "\n".join(lines)


def explain_gated(dataset: str, why: str, gates: str) -> str:
    """Explain that a dataset that is left out has a threshold or a baseline."""
    out = "deselect it"
    if _PLAIN.fullmatch(dataset):
        out += f" (-k 'not {dataset}')"
    return (
        f"{dataset} is left out, as it cannot be scored ({why}), but it has {gates}. "
        f"Nothing was asked. Remove what it has, {out}, or ask it without a score with "
        "--vlm-mode=infer, which checks no gate."
    )


def explain_left_out(reasons: Mapping[str, str]) -> str:
    """Name the datasets that a benchmark leaves out, and how to ask them."""
    by_reason: dict[str, list[str]] = {}
    for name, why in reasons.items():
        by_reason.setdefault(why, []).append(name)
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in by_reason.items())
    return f"left out, as no score is possible: {told}. --vlm-mode=infer asks them too"
