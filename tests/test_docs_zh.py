"""Every page has a Chinese one with the same parts, and each links to the other."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.support.documentation import PAGES, read
from tests.support.languages import COUNTERPARTS, PHRASES, differences, translated

# TODO: empty.
UNTRANSLATED = {path.name for path in PAGES if not COUNTERPARTS[path].exists()}
PAIR = pytest.mark.parametrize(
    "page",
    [path for path in PAGES if path.name not in UNTRANSLATED],
    ids=lambda path: path.stem,
)


def test_every_page_has_a_chinese_one_and_no_other_has() -> None:
    chinese = {path.name for path in COUNTERPARTS[PAGES[0]].parent.glob("*.md")}
    assert chinese | UNTRANSLATED == {path.name for path in PAGES}


@PAIR
def test_the_line_below_the_title_leads_to_the_other_language(page: Path) -> None:
    other = COUNTERPARTS[page]
    for path, language, target in ((page, "中文", other), (other, "English", page)):
        link = os.path.relpath(target, path.parent)
        assert read(path).splitlines()[1:4] == ["", f"[{language}]({link})", ""]


@PAIR
def test_both_languages_have_the_same_parts(page: Path) -> None:
    found = list(differences(page))
    assert not found, "\n".join(found)


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


@PAIR
def test_the_punctuation_is_chinese(page: Path) -> None:
    prose = re.sub(r"`[^`]*`|<code>.*?</code>", "", read(COUNTERPARTS[page]))
    assert not re.findall(r"[\u4e00-\u9fff][,;:?!]\s", prose)
