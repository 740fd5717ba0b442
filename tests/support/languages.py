"""The English and the Chinese pages: what belongs together, and what differs."""

# ruff: noqa: RUF001 (Chinese text has punctuation of full width)

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

from tests.support.documentation import LINK, PAGES, READMES, ROOT, anchors, read

CHINESE = ROOT / "docs/zh"
DATASETS = ROOT / "docs/datasets.md"
PHRASES = CHINESE / "phrases.toml"
README, CHINESE_README = READMES
COUNTERPARTS = {
    README: CHINESE_README,
    CHINESE_README: README,
    **{path: CHINESE / path.name for path in PAGES},
}
MONTHS = (
    "January February March April May June July August September October November "
    "December"
).split()
# What a test writes into an English page; what it holds is translated by phrases.
GENERATED = re.compile(
    r"(?<=\n)(<!-- (?:The test of|fields)[^>]*-->\n)(.*?)(\n<!-- (?:Until|end))",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A heading, paragraph, list item, row, block of code or comment of a page."""

    kind: str
    text: str
    line: int

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 70 else f"{self.text[:70]}..."
        return f"line {self.line}, a {self.kind}: {text!r}"


def kind_of(line: str, *, follows: bool) -> str | None:
    """Return the kind of the part that a line begins, or None if it continues one."""
    if line.startswith("```"):
        return f"block of code ({line[3:]})"
    if line.startswith("<!--"):
        return "comment"
    if match := re.match(r"(#+) ", line):
        return f"heading of level {len(match[1])}"
    if line.startswith("|"):
        cells = re.findall(r"(?<!\\)\|", line)
        return f"row of {len(cells) - 1} cells"
    if match := re.match(r"( *)(-|\d+\.) ", line):
        return f"list item ({match[1]}{match[2]})"
    if follows:
        return None
    return "block of code" if line.startswith("    ") else "paragraph"


def parts(text: str) -> list[Part]:
    """Return a page's parts in their order."""
    found: list[tuple[str, list[str], int]] = []
    fenced = follows = False
    for number, line in enumerate(text.splitlines(), 1):
        kind = None if fenced else kind_of(line, follows=follows)
        if not fenced and not line:
            follows = False
            continue
        if kind:
            found.append((kind, [], number))
        found[-1][1].append(line)
        fenced ^= line.startswith("```")
        follows = True
    return [
        Part(kind=kind, text="\n".join(lines), line=number)
        for kind, lines, number in found
    ]


def counterpart(link: str, page: Path) -> str:
    """Return where the Chinese counterpart of a page links to, for one of its links."""
    file, _, anchor = link.partition("#")
    if link.startswith("http"):
        return link
    target = (page.parent / file).resolve() if file else page
    other = COUNTERPARTS.get(target, target)
    if anchor and other != target:
        here, there = (anchors(read(each)) for each in (target, other))
        anchor = dict(zip(here, there, strict=False)).get(anchor, anchor)
    path = os.path.relpath(other, COUNTERPARTS[page].parent) if file else ""
    return f"{path}#{anchor}" if anchor else path


@cache
def dataset_names() -> frozenset[str]:
    """Return the names of the datasets that have rows in docs/datasets.md."""
    rows = re.findall(r"^\| ([\w-]+) \|(?: [^|]* \|){5}$", read(DATASETS), re.M)
    return frozenset(rows) - {"dataset", "---"}


def numbers(text: str) -> set[str]:
    """Return the numbers of a sentence, months among them."""
    for number, month in enumerate(MONTHS, 1):
        text = re.sub(rf"\b{month}\b(?= \d)", str(number), text)
    return set(re.findall(r"\d+(?:[,.]\d+)*", text))


def named(part: Part, page: Path, *, english: bool) -> dict[str, set[str]]:
    """Return what a part names that has to be the same in both languages."""
    links = set(LINK.findall(part.text))
    if english:
        links = {counterpart(link, page) for link in links}
    prose = re.sub(r"\]\([^)]*\)|<code>.*?</code>", "]", part.text)
    spans = re.findall(r"`([^`]+)`", prose)
    words = re.sub(r"`[^`]+`", " ", prose)
    return {
        "links": links,
        "code": {" ".join(each.split()) for each in spans},
        "numbers": numbers(words),
        "datasets": {*re.findall(r"[A-Za-z0-9][\w-]*", words, re.A)} & dataset_names(),
        "bold texts": {str(part.text.count("**") // 2)},
    }


def code(part: Part) -> str:
    """Return a block of code without its comments."""
    return re.sub(r"[ \t]*(?:^|(?<=\s))# .*$", "", part.text, flags=re.MULTILINE)


def differences(page: Path, chinese_text: str) -> Iterator[str]:
    """Say where the text of a page's Chinese counterpart differs from it, and how."""
    ours, theirs = parts(read(page)), parts(chinese_text)
    here, there = ([part.kind for part in each] for each in (ours, theirs))
    steps = SequenceMatcher(None, here, there, autojunk=False).get_opcodes()
    steps = [step for step in steps if step[0] != "equal"]
    for _, start, stop, begin, end in steps:
        english, chinese = ours[start:stop], theirs[begin:end]
        yield f"the English page has {', '.join(map(str, english)) or 'nothing'}"
        place = f"nothing after line {theirs[begin - 1].line if begin else 0}"
        yield f"    the Chinese page has {', '.join(map(str, chinese)) or place}"
    if steps:
        return
    # The line after the title leads to the other language.
    for our, their in zip(ours, theirs, strict=True):
        if our.line == 3:
            continue
        where = f"line {our.line} of the English page, {their.line} of the Chinese"
        if our.kind == "comment" or our.kind.startswith("block"):
            if code(our) != code(their):
                yield f"{where}: a {our.kind} differs: {code(our)!r}, {code(their)!r}"
            continue
        has = named(their, page, english=False)
        for what, values in named(our, page, english=True).items():
            for adverb, found in (
                ("only the English", values - has[what]),
                ("only the Chinese", has[what] - values),
            ):
                if found:
                    yield f"{where}: {what}: {adverb} page has {sorted(found)}"


def translate_text(text: str, phrases: dict[str, str]) -> str | None:
    """Return a generated text in Chinese, or None if a phrase for it is missing."""
    if text in phrases:
        return phrases[text]
    digits = re.compile(r"\d+(?:[,.]\d+)*")
    if phrase := phrases.get(digits.sub("#", text)):
        values = iter(digits.findall(text))
        return re.sub("#", lambda _: next(values), phrase)
    if re.fullmatch(r"(?:`[^`]*`|<code>.*?</code>|\S+)?", text):
        return text
    for separator, chinese in (("; ", "；"), (": ", "："), (", ", "，")):
        first, found, rest = text.partition(separator)
        if not found:
            continue
        begin, end = translate_text(first, phrases), translate_text(rest, phrases)
        if begin is not None and end is not None:
            return text if (begin, end) == (first, rest) else f"{begin}{chinese}{end}"
    return None


def translate_line(line: str, phrases: dict[str, str]) -> Iterator[str | None]:
    """Return the cells of a row, or a line, in Chinese; None if a phrase is missing."""
    if re.fullmatch(r"[-| ]*", line):
        yield line
        return
    cells = re.split(r"(^\| | \| ?| \|$)", line) if line.startswith("|") else [line]
    for cell in cells:
        examples = re.search(r"(?:^|(?<= ))(?:<code>|\(nothing\)|`).*$", cell)
        if "<code>" in cell and examples:
            kind = translate_text(cell[: examples.start()].rstrip(": "), phrases)
            shown = examples[0].replace("(nothing)", "（空）")
            yield kind if kind is None else f"{kind}：{shown}"
        else:
            yield (
                cell if re.fullmatch(r"[| ]*", cell) else translate_text(cell, phrases)
            )


def translated(page: Path) -> tuple[str, list[str]]:
    """Return a Chinese page with new generated parts, and the lines without phrases."""
    phrases = tomllib.loads(read(PHRASES)).get(page.stem, {})
    text, missing = read(COUNTERPARTS[page]), []
    for begin, inside, end in GENERATED.findall(read(page)):
        lines = []
        for line in inside.splitlines():
            cells = list(translate_line(line, phrases))
            if None in cells:
                missing.append(line)
            lines.append("".join(each or "" for each in cells))
        before, found, rest = text.partition(begin)
        _, until, after = rest.partition(end)
        if found and until:
            text = "".join([before, begin, "\n".join(lines), end, after])
    return text, missing
