"""Every page has a Chinese one with the same parts, and each links to the other."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.documentation import PAGES, ROOT, read
from tests.support.languages import (
    CHINESE,
    COUNTERPARTS,
    PHRASES,
    differences,
    translated,
)

pytestmark = pytest.mark.once

PAIR = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)


def test_every_page_has_a_chinese_one() -> None:
    assert [path.name for path in sorted(CHINESE.glob("*.md"))] == [
        path.name for path in PAGES
    ]


@PAIR
def test_the_line_below_the_title_leads_to_the_other_language(page: Path) -> None:
    other = COUNTERPARTS[page]
    for path, language, target in ((page, "中文", other), (other, "English", page)):
        link = os.path.relpath(target, path.parent)
        assert read(path).splitlines()[1:4] == ["", f"[{language}]({link})", ""]


@PAIR
def test_both_languages_have_the_same_parts(page: Path) -> None:
    found = list(differences(page, read(COUNTERPARTS[page])))
    assert not found, "\n".join([f"docs/zh/{page.name}:", *found])


JUDGE = ROOT / "docs/judge.md"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("## 多个裁判模型\n\n", "", "a heading of level 2: '## Several judges'"),
        ("一致性", "0.9 的一致性", "numbers: only the Chinese page has ['0.9']"),
        ("(endpoints.md)", "", "links: only the English page has ['endpoints.md']"),
        ("重复 `--vlm-judge`", "", "code: only the English page has ['--vlm-judge']"),
        ("scale=(1, 5)", "scale=(1, 9)", "a block of code (python) differs: "),
    ],
    ids=["heading", "number", "link", "option", "code"],
)
def test_what_differs_is_named(old: str, new: str, message: str) -> None:
    text = read(COUNTERPARTS[JUDGE])
    assert old in text
    found = "\n".join(differences(JUDGE, text.replace(old, new)))
    assert message in found
    assert found.count("\n") < 2, found


@PAIR
def test_generated_parts_are_translated(
    page: Path, request: pytest.FixtureRequest
) -> None:
    text, missing = translated(page)
    assert not missing, f"{PHRASES.name} lacks phrases for {missing}"
    if request.config.getoption("--write-docs"):
        COUNTERPARTS[page].write_text(text, encoding="utf-8")
    assert read(COUNTERPARTS[page]) == text, (
        f"docs/zh/{page.name} is not what docs/{page.name} and its phrases say: write "
        "it anew by pytest tests/test_docs_zh.py --write-docs"
    )


@pytest.mark.parametrize(
    "path",
    [ROOT / "README.zh-CN.md", *sorted(CHINESE.glob("*.md"))],
    ids=lambda path: path.stem,
)
def test_chinese_text_is_set_as_such(path: Path) -> None:
    prose = re.sub(r"`[^`]*`|<code>.*?</code>", "", read(path))
    assert not re.findall(r"[\u4e00-\u9fff][,;:?!] .*", prose)
    # A line that ends within Chinese text would be shown with a blank.
    assert not re.findall(r".*[\u3001-\uff5e]\n *[\u3001-\u9fff].*", prose)
