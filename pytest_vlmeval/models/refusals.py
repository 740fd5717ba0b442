"""What a server's refusal says of the members of a request: a name, or a temperature.

Reads the wording of OpenAI, Azure and the servers that follow them.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

Member = Literal["max_tokens", "temperature"]
# What OpenAI itself has in place of max_tokens.
SUCCESSOR = "max_completion_tokens"
_LIMITS = re.compile(r"\bmax(?:_[a-z]+)*_tokens\b")
_UNSUPPORTED = re.compile(
    r"unsupported|unrecognized|unexpected|unknown|deprecated|in favou?r of|instead"
    r"|not (?:be )?(?:supported|permitted|allowed|accepted)|n.t support|not support"
    r"|(?:was|been|is) (?:renamed|replaced|removed|moved)|has moved",
    re.IGNORECASE,
)
# A limit that is refused for its value is known by its name.
_OF_THE_VALUE = re.compile(
    r"too (?:large|small|high|low|long)|context (?:length|window)|at (?:least|most)"
    r"|less than|greater than|exceed|range|positive",
    re.IGNORECASE,
)
_TEMPERATURE = re.compile(
    r"unsupported (?:value|parameter)[^.]{0,12}\btemperature\b"
    r"|invalid (?:value for )?.?temperature\b"
    r"|\btemperature\b.{0,3} (?:is |does |cannot |can ?not |must |may )?"
    r"(?:only )?(?:not (?:be )?(?:supported|support|allowed|permitted|set|specified)"
    r"|n.t (?:supported|allowed)|unsupported|deprecated|be (?:set|specified) to|be \d)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberRefusal:
    """A member that a server does not take as it is; `instead` is what it asks for."""

    member: Member
    instead: str = ""


def read_refusal(body: bytes, limit: str = "max_tokens") -> MemberRefusal | None:
    """Return which member the body of a 400 or 422 refuses, None for anything else.

    `limit` is the name under which the token limit was sent.
    """
    text = body.decode("utf-8", errors="replace")[:4000]
    param, words = _param_and_words(text)
    # Azure writes MaxTokens of some models.
    words = re.sub(r"\bMax(Completion|Output)?Tokens\b", _with_underscores, words)
    if _is_of_limit(param, words, limit):
        others = [name for name in _LIMITS.findall(words) if name != limit]
        return MemberRefusal(
            member="max_tokens", instead=others[0] if others else SUCCESSOR
        )
    if param == "temperature" or _TEMPERATURE.search(words):
        return MemberRefusal(member="temperature")
    return None


def _with_underscores(name: re.Match[str]) -> str:
    return f"max_{name[1].lower()}_tokens" if name[1] else "max_tokens"


def _is_of_limit(param: str, words: str, limit: str) -> bool:
    if _OF_THE_VALUE.search(words) or not _UNSUPPORTED.search(words):
        return False
    names = _LIMITS.findall(words)
    if param:
        return param == limit
    # The one that is refused is named first, but for "use B instead of A".
    instead_of = rf"(?:instead of|rather than|not)\W{{1,3}}{re.escape(limit)}\b"
    return names[:1] == [limit] or bool(re.search(instead_of, words))


def _param_and_words(text: str) -> tuple[str, str]:
    """Return the member that an error names in its field, and its words."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return "", text
    error = value.get("error") if isinstance(value, dict) else None
    fields = error if isinstance(error, dict) else value
    if not isinstance(fields, dict):
        return "", text
    param, message = fields.get("param"), fields.get("message")
    if isinstance(fields.get("detail"), list):
        return _detail(fields["detail"])
    return (
        param.rpartition(".")[2] if isinstance(param, str) else "",
        message if isinstance(message, str) else text,
    )


def _detail(entries: list[object]) -> tuple[str, str]:
    """Read the first entry of FastAPI's list, whose place is a path."""
    entry = entries[0] if entries else None
    if not isinstance(entry, dict):
        return "", str(entry)
    place = entry.get("loc")
    name = place[-1] if isinstance(place, list) and place else ""
    return name if isinstance(name, str) else "", str(entry.get("msg", ""))
