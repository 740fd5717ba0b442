"""What a server refuses: the member of the request, how to fix it, when to stop.

Reads the wording of OpenAI, Azure and the servers that follow them.

A refusal is a status that asking again does not change: 400, 413 and the like.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from itertools import takewhile
from typing import TYPE_CHECKING, Literal

from pytest_vlmeval.models.client import OutageError

if TYPE_CHECKING:
    from pytest_vlmeval.models.client import RequestError

Member = Literal["max_tokens", "temperature"]
# What an error calls a prompt that a filter stopped.
_FILTER_CODES = frozenset(
    "content_filter content_policy_violation responsibleaipolicyviolation "
    "data_inspection_failed datainspectionfailed".split()
)
LONGEST_WORDS = 4000  # characters of an error that are looked through
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
_REFUSED_TEMPERATURE = re.compile(
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


def error_members(body: bytes) -> dict[str, object]:
    """Return the members of the error in a body: of OpenAI's `error`, else its own.

    There are none in what is no JSON object.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    members = error if isinstance(error, dict) else value
    return members if isinstance(members, dict) else {}


def is_filtered(body: bytes) -> bool:
    """Return whether an error body says that a filter stopped the prompt."""
    error = error_members(body)
    inner = error.get("innererror")
    codes = [error.get("code"), inner.get("code") if isinstance(inner, dict) else None]
    return any(str(code).lower() in _FILTER_CODES for code in codes)


def read_refusal(body: bytes, limit: str = "max_tokens") -> MemberRefusal | None:
    """Return which member the body of a 400 or 422 refuses, None for anything else.

    `limit` is the name under which the token limit was sent.
    """
    param, words = _param_and_words(body)
    # Azure writes MaxTokens of some models.
    words = re.sub(
        r"\bMax(Completion|Output)?Tokens\b",
        lambda name: f"max_{name[1].lower()}_tokens" if name[1] else "max_tokens",
        words,
    )
    if _UNSUPPORTED.search(words) and not _OF_THE_VALUE.search(words):
        names = _LIMITS.findall(words)
        # The one that is refused is named first, but for "use B instead of A".
        instead_of = rf"(?:instead of|rather than|not)\W{{1,3}}{re.escape(limit)}\b"
        named = names[:1] == [limit] or re.search(instead_of, words)
        if param == limit or (named and not param):
            others = [name for name in names if name != limit]
            return MemberRefusal(
                member="max_tokens", instead=others[0] if others else SUCCESSOR
            )
    if param == "temperature" or _REFUSED_TEMPERATURE.search(words):
        return MemberRefusal(member="temperature")
    return None


def _param_and_words(body: bytes) -> tuple[str, str]:
    """Return the member that an error names in its field, and its words."""
    error = error_members(body)
    param, words = error.get("param"), error.get("message")
    details = error.get("detail")
    if isinstance(details, list):  # FastAPI's, where a place is a path
        entry = details[0] if details else None
        words = str(entry.get("msg", "") if isinstance(entry, dict) else entry)
        place = entry.get("loc") if isinstance(entry, dict) else None
        param = place[-1] if isinstance(place, list) and place else None
    if not isinstance(words, str):
        words = body[:LONGEST_WORDS].decode("utf-8", errors="replace")
    name = param.rpartition(".")[2] if isinstance(param, str) else ""
    return name, words[:LONGEST_WORDS]


# As many samples in a row that are refused alike, and the dataset is asked no further.
MOST_REFUSALS = 10
# As many samples for which there is nothing at the address, none of them answered, and
# the run ends.
MOST_NOT_FOUND = 5
# From so many on a sample is asked alone at once, as each refusal is confirmed alone.
ALONE_FROM = 3

LONGER = "vLLM: --max-model-len, swift: --max_model_len"
SMALLER = (
    "Send smaller images with --vlm-max-pixels=PIXELS or --vlm-image-size=PIXELS, or "
    "let the server take longer requests"
)
# The same of a prompt without an image.
SHORTER = "Let the server take longer requests"
_OTHERS = (
    "a prompt beyond the server's context length, a model without a chat template. The "
    "server's log says more."
)
NOT_THERE = (
    "No request was answered otherwise. Stopping. Give the base URL of the API with "
    "--vlm-api-base; it mostly ends in /v1."
)
CAUSES = (
    "Likely causes: images too large (--vlm-max-pixels=PIXELS makes them smaller), "
    f"{_OTHERS}"
)
TEXT_CAUSES = f"Likely causes: {_OTHERS}"
FEWER_TOKENS = "Allow fewer tokens with --vlm-max-tokens=N."
OTHER_TEMPERATURE = (
    "Send another temperature with --vlm-temperature=T, or none with "
    "--vlm-temperature=none. Both change the answers."
)
_TOO_LONG = re.compile(
    r"context.?(length|window|size)|max_model_len|too many .{0,20}tokens"
    r"|(input|prompt|request|message)s? .{0,20}too (long|large)"
    r"|longer than the .{0,20}(model|maximum|limit)|exceed\w* .{0,40}(token|length)"
    r"|(token|length) .{0,30}exceed|entity too large|payload too large",
    re.IGNORECASE,
)
_NO_TEMPLATE = re.compile(r"chat.?template", re.IGNORECASE)
_TOKEN_LIMIT = re.compile(
    r"\bmax_?(?:\w+_)?tokens\b|\b(?:completion|output) tokens\b", re.IGNORECASE
)
_NAMED_TEMPERATURE = re.compile(r"\btemperature\b", re.IGNORECASE)
# A member that no option but --vlm-extra-body sends.
_MEMBER = re.compile(
    r"(?:unknown|unrecognized|unsupported|unexpected|extra)\b[^:'\"`]{0,40}"
    r"(?:parameter|argument|keyword)s?\b[^:'\"`]{0,20}:? ?"
    r"[`'\"]?(?P<refused>[a-z]+(?:_[a-z]+)+|(?<=[`'\"])[a-z]+)"
    r"|\b(?:body[.:] ?)?(?P<named>top_[kp]|min_p|[a-z]+_penalty|logprobs"
    r"|top_logprobs|best_of|reasoning_effort|response_format|chat_template_kwargs"
    r"|enable_thinking|logit_bias|guided_\w+)\b",
    re.IGNORECASE,
)
# The server's own words, after the address and status.
_SAID = re.compile(r"\A\S+ answered \d+: ")
# What differs from sample to sample in words that are alike: numbers, names, ids.
# A part of a UUID may be letters alone.
_OWN = re.compile(
    r"\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b|\w*\d\w*", re.IGNORECASE
)
# Chinese, Japanese and Korean have no blanks between words.
_WORD = re.compile("[\u3040-\u9fff\uac00-\ud7af]|[^\\W\u3040-\u9fff\uac00-\ud7af]+")
# So many words at the beginning, or at the end, are no accident.
SAME_BEGINNING = 2
SAME_END = 3


def find_fix(error: RequestError, *, has_images: bool = True) -> str:
    """Return how to fix what a server refused, if its words tell; "" otherwise."""
    smaller = SMALLER if has_images else SHORTER
    if error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return f"{smaller}."
    if error.status is None or error.retryable:
        return ""
    words = _SAID.sub("", str(error))
    limits_tokens = _TOKEN_LIMIT.search(words)
    if _TOO_LONG.search(words):
        fewer = f" {FEWER_TOKENS}" if limits_tokens else ""
        return f"{smaller} ({LONGER}).{fewer}"
    if _NAMED_TEMPERATURE.search(words):
        return OTHER_TEMPERATURE
    if limits_tokens:
        return FEWER_TOKENS
    if member := _MEMBER.search(words):
        name = member["refused"] or member["named"]
        return (
            f"If --vlm-extra-body sends {name!r}, leave it out there or give it "
            "another value."
        )
    if _NO_TEMPLATE.search(words):
        return (
            "Start the server with a chat template (vLLM: --chat-template, swift: "
            "--template)."
        )
    return ""


def explain(error: RequestError, *, has_images: bool = True) -> str:
    """Return the text of an error, with its fix where there is one."""
    fix = find_fix(error, has_images=has_images)
    return f"{str(error).rstrip('.')}. {fix}" if fix else str(error)


@dataclass(slots=True)
class _Row:
    """Refusals like the first one, with no answer between them: of which samples."""

    status: int | None = None
    words: tuple[str, ...] = ()
    samples: set[str] = field(default_factory=set)

    def takes(self, status: int | None, words: tuple[str, ...]) -> bool:
        """Return whether a refusal is like those of the row.

        Words may repeat the prompt, or name the request: what surrounds that is alike.
        """
        if status != self.status:
            return False
        if words == self.words:
            return True
        begins = _count_same(words, self.words) >= SAME_BEGINNING
        ends = _count_same(words[::-1], self.words[::-1]) >= SAME_END
        common = len(set(words) & set(self.words))
        most = max(len(set(words)), len(set(self.words)))
        return begins or ends or 2 * common >= most


def _words_of(error: RequestError) -> tuple[str, ...]:
    """Return a server's words without the numbers, names and ids among them."""
    said = _SAID.sub("", str(error)).lower()
    return tuple(_WORD.findall(_OWN.sub(" ", said)))


def _count_same(one: tuple[str, ...], other: tuple[str, ...]) -> int:
    """Return how many words two texts begin with alike."""
    pairs = zip(one, other, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


class Refusals:
    """Counts the refusals in a row of each dataset, and says which are given up.

    `names` has the datasets by their fingerprints; `announce` is told once of each.
    All calls are on one event loop.
    """

    def __init__(
        self, names: Mapping[str, str], announce: Callable[[str], None]
    ) -> None:
        self._names = names
        self._announce = announce
        self._rows: dict[str, _Row] = {}
        self._given_up: dict[str, str] = {}
        self._answered = False
        self._not_found: set[tuple[str, str]] = set()
        # One is confirmed at a time, so that none is sent after the last that counts.
        self.confirming = asyncio.Lock()

    def why_given_up(self, fingerprint: str) -> str:
        """Explain why nothing more is asked of a dataset; "" as long as it is."""
        return self._given_up.get(fingerprint, "")

    def is_suspect(self, fingerprint: str) -> bool:
        """Return whether a sample had better be asked alone at once."""
        row = self._rows.get(fingerprint)
        return row is not None and len(row.samples) >= ALONE_FROM

    def note_answer(self, fingerprint: str) -> None:
        """Take in that a sample was answered."""
        self._answered = True
        self._rows.pop(fingerprint, None)

    def note_refusal(
        self,
        fingerprint: str,
        index: str,
        error: RequestError,
        *,
        has_images: bool = True,
    ) -> None:
        """Take in that a sample failed; what is no refusal neither counts nor ends.

        Raises `OutageError` if there is nothing at the address.
        """
        if error.kind != "status" or error.retryable:
            return
        if error.status == HTTPStatus.NOT_FOUND and not self._answered:
            self._not_found.add((fingerprint, index))
            if len(self._not_found) == MOST_NOT_FOUND:
                raise OutageError(f"{str(error).rstrip('.')}. {NOT_THERE}")
        words = _words_of(error)
        row = self._rows.get(fingerprint)
        if row is None or not row.takes(error.status, words):
            row = self._rows[fingerprint] = _Row(error.status, words)
        row.samples.add(index)
        if len(row.samples) < MOST_REFUSALS or fingerprint in self._given_up:
            return
        name, said = self._names[fingerprint], str(error).rstrip(".")
        fix = find_fix(error, has_images=has_images)
        fix = fix or (CAUSES if has_images else TEXT_CAUSES)
        why = f"the server refused {MOST_REFUSALS}"
        self._given_up[fingerprint] = (
            f"not asked, as {why} samples of {name} in a row alike: {said}. {fix} The "
            "next command asks this sample again."
        )
        self._announce(
            f"asks no more of {name}, as {why} of its samples in a row alike: {said}. "
            f"{fix}"
        )
