"""What a model thought, told apart from what it answered."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

from pytest_vlmeval.prompt_settings import TagPair

# What models put around their thoughts, in any case: Qwen, DeepSeek, GLM and most
# others; Claude's prompts; EXAONE; Seed-OSS; Magistral; Kimi; Cohere; OpenThinker;
# MedGemma.
THINK_TAGS: tuple[TagPair, ...] = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<thoughts>", "</thoughts>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
    ("<unused94>", "<unused95>"),
)
# gpt-oss: <|channel|>analysis<|message|>...<|end|><|start|>assistant<|channel|>final
_CHANNEL = re.compile(
    r"(?:<\|start\|>\s*assistant\s*)?<\|channel\|>\s*(?P<name>\w++)[^<]{0,200}"
    r"(?:<\|constrain\|>[^<]{0,200})?<\|message\|>"
)
_CHANNEL_ENDS = re.compile(r"<\|(?:end|return|call|start)\|>")
_FINAL = "final"
# As in <think >.
_BLANKS = re.compile(r"[ \t]{1,8}>")
# The same where the server leaves out special tokens.
_BARE_CHANNELS = re.compile(r"\s*analysis(?P<thoughts>.*)assistantfinal", re.DOTALL)


class Thoughts(NamedTuple):
    """A text in two; `closed` is false where it ends in the middle of the thoughts."""

    reasoning: str
    answer: str
    closed: bool


class _Tag(NamedTuple):
    """A tag in a text, of the pair of that number."""

    pair: int
    opens: bool
    start: int
    end: int


def split_thoughts(text: str, more: Sequence[TagPair] | None = ()) -> Thoughts:
    """Part a text at the tags around thoughts, `THINK_TAGS` and `more`.

    With None it is not parted.

    The tag that opens them may be missing: templates that put it at the end of the
    prompt leave it out of the answer. Where it stands in the middle of a text it needs
    the one that closes, and a tag in quotes is only mentioned. Without any tag there
    are no thoughts.
    """
    if more is None:
        return Thoughts("", text, closed=True)
    channels = _split_channels(text)
    if channels is not None:
        return channels
    tags = list(_find_tags(text, tuple(more)))
    if not tags:
        return Thoughts("", text, closed=True)
    return _split(text, tags)


def _split(text: str, tags: Sequence[_Tag]) -> Thoughts:
    thoughts: list[str] = []
    answers: list[str] = []
    last_closing = {tag.pair: n for n, tag in enumerate(tags) if not tag.opens}
    said = False  # whether anything of an answer came so far
    position = number = 0
    while number < len(tags):
        tag = tags[number]
        if last_closing.get(tag.pair, -1) < number:  # never closed
            if not said and not text[position : tag.start].strip():
                thoughts.append(text[tag.end :])
                return Thoughts("".join(thoughts).strip(), "", closed=False)
            said = True
            number += 1  # only mentioned, in the middle of an answer
            continue
        last = _closing(tags, number)
        if tag.opens:
            answers.append(text[position : tag.start])
            said = said or bool(answers[-1].strip())
            thoughts.append(text[tag.end : tags[last].start])
        else:
            thoughts += [*answers, text[position : tags[last].start]]
            answers, said = [], False
        position = tags[last].end
        number = last + 1
    if not thoughts:
        return Thoughts("", text, closed=True)
    answers.append(text[position:])
    return Thoughts("".join(thoughts).strip(), "".join(answers).strip(), closed=True)


def _closing(tags: Sequence[_Tag], number: int) -> int:
    """Return the number of the tag that ends the thoughts of this one.

    Thoughts may mention tags, those that close them too: of several in a row the last
    one counts. A closing tag that nothing opened ends all before it.
    """
    found = number
    for later in range(number + 1, len(tags)):
        if tags[later].pair == tags[number].pair:
            if not tags[later].opens:
                found = later
            elif not tags[found].opens:
                break
    return found


def _find_tags(text: str, more: tuple[TagPair, ...]) -> Iterator[_Tag]:
    pattern, names = _pattern(more)
    for found in pattern.finditer(text):
        if found["tag"] is not None:
            pair, opens = names[_BLANKS.sub(">", found["tag"].lower())]
            yield _Tag(pair, opens, found.start(), found.end())


@lru_cache(maxsize=8)
def _pattern(
    more: tuple[TagPair, ...],
) -> tuple[re.Pattern[str], dict[str, tuple[int, bool]]]:
    """Return what finds every tag but those in quotes, and what each of them is."""
    names: dict[str, tuple[int, bool]] = {}
    for number, (opening, closing) in enumerate((*more, *THINK_TAGS)):
        names.setdefault(_BLANKS.sub(">", opening.lower()), (number, True))
        names.setdefault(_BLANKS.sub(">", closing.lower()), (number, False))
    longest_first = sorted(names, key=len, reverse=True)
    any_tag = "|".join(
        re.escape(name[:-1]) + r"[ \t]{0,8}>" if name.endswith(">") else re.escape(name)
        for name in longest_first
    )
    quoted = rf"(?P<quote>[`\"'])(?:{any_tag})(?P=quote)"
    return re.compile(rf"{quoted}|(?P<tag>{any_tag})", re.IGNORECASE), names


def _split_channels(text: str) -> Thoughts | None:
    """Part the channels of gpt-oss, whose final one is the answer; None without any."""
    if "<|channel|>" not in text:
        bare = _BARE_CHANNELS.match(text)
        if bare is None:
            return None
        return Thoughts(bare["thoughts"].strip(), text[bare.end() :].strip(), True)
    channels = list(_CHANNEL.finditer(text))
    if not channels:
        return None
    thoughts = [text[: channels[0].start()]]
    answers: list[str] = []
    ends = [each.start() for each in channels[1:]] + [len(text)]
    for channel, end in zip(channels, ends, strict=True):
        said = text[channel.end() : end]
        said = said[: found.start()] if (found := _CHANNEL_ENDS.search(said)) else said
        (answers if channel["name"].lower() == _FINAL else thoughts).append(said)
    reasoning = "\n".join(each.strip() for each in thoughts if each.strip())
    return Thoughts(reasoning, "".join(answers).strip(), closed=bool(answers))
