"""Builds the site of the documentation, with Sphinx: make docs.

The source is the whole checkout, so that links between pages, the README and files are
the same here and where the files are read as they are. The navigation is docs/index.md,
and docs/zh/index.md for the pages in Chinese.
"""

from __future__ import annotations

import posixpath
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

ROOT = Path(__file__).parents[1]
METADATA = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

project = METADATA["name"]
version = release = METADATA["version"]
author = f"The authors of {project}"
root_doc = "docs/index"
chinese_doc = "docs/zh/index"
include_patterns = [
    "docs/*.md",
    "docs/zh/*.md",
    "README*.md",
    "SECURITY.md",
    "CHANGELOG.md",
]
exclude_patterns = ["**/.*", ".*", "build", "dist"]
extensions = ["myst_parser"]
# Deep enough for every link to a heading.
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
# A link that leads nowhere is an error: make docs turns warnings into errors.
nitpicky = True


def toctree(title: str, pages: list[str]) -> str:
    """Return a section of the sidebar, as it stands in a page."""
    lines = "\n".join(pages)
    return f"\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{lines}\n```\n"


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Make each section of an index one of the sidebar, with the pages it links to."""
    if page not in {root_doc, chinese_doc}:
        return
    folder = f"/{posixpath.dirname(page)}"
    for section in source[0].split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        links = re.findall(r"\]\(([\w./-]+)\.md\)", text)
        pages = [posixpath.normpath(f"{folder}/{each}") for each in links]
        if page == chinese_doc:
            # What lies elsewhere is in the sidebar already.
            pages = [each for each in pages if posixpath.dirname(each) == folder]
        source[0] += toctree(title, pages)
    if page == root_doc:
        source[0] += toctree("中文", [f"/{chinese_doc}"])


def set_language(
    app: Sphinx, page: str, template: str, context: dict[str, object], tree: object
) -> None:
    """Name the language of a page, by which browsers choose its letters."""
    folder = posixpath.dirname(chinese_doc)
    if page.startswith(f"{folder}/") or page == "README.zh-CN":
        context["language"] = "zh-CN"


def setup(app: Sphinx) -> None:
    """Connect what adds the navigation and what names languages."""
    app.connect("source-read", add_navigation)
    app.connect("html-page-context", set_language)
