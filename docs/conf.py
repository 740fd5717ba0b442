"""Builds the site of the documentation, with Sphinx: make docs.

The source is the whole checkout, so that links between pages, the README and files are
the same here and where the files are read as they are. The navigation is docs/index.md.
"""

from __future__ import annotations

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
include_patterns = ["docs/*.md", "README*.md", "SECURITY.md", "CHANGELOG.md"]
exclude_patterns = ["**/.*", ".*", "build", "dist"]
extensions = ["myst_parser"]
# Deep enough for every link to a heading.
myst_heading_anchors = 3
html_theme = "furo"
html_title = project
# A link that leads nowhere is an error: make docs turns warnings into errors.
nitpicky = True


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Make each section of the index one of the sidebar, with the pages it links to."""
    if page != root_doc:
        return
    for section in source[0].split("\n## ")[1:]:
        title, _, text = section.partition("\n")
        pages = [
            f"/{name}" if outside else name
            for outside, name in re.findall(r"\]\((\.\./)?([\w.-]+)\.md\)", text)
        ]
        lines = "\n".join(pages)
        source[0] += (
            f"\n\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n{lines}\n```\n"
        )


def setup(app: Sphinx) -> None:
    """Connect what reads the index."""
    app.connect("source-read", add_navigation)
