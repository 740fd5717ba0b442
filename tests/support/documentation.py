"""The documentation as tests read it: headings, blocks, tables, links; and a reader."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
READMES = (ROOT / "README.md", ROOT / "README.zh-CN.md")
ALL = [*READMES, ROOT / "SECURITY.md", *PAGES, *sorted((ROOT / "docs/zh").glob("*.md"))]
FENCE = re.compile(r"^```(\w*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code below a heading; `note` is what follows its language."""

    heading: str
    language: str
    note: str
    code: str


def read(path: Path) -> str:
    """Return a page's text."""
    return path.read_text(encoding="utf-8")


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks in their order."""
    found = []
    for match in FENCE.finditer(text):
        headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text[: match.start()]), re.M)
        found.append(
            Block(
                heading=headings[-1] if headings else "",
                language=match[1],
                note=match[2],
                code=match[3],
            )
        )
    return found


def block(text: str, heading: str, language: str = "sh", number: int = 0) -> str:
    """Return the code of one block below a heading."""
    return [
        each.code
        for each in blocks(text)
        if (each.heading, each.language) == (heading, language)
    ][number]


def commands(text: str) -> list[str]:
    """Return the shell's command lines that begin with pytest, in any block."""
    joined = text.replace("\\\n", " ")
    lines = re.findall(r"^(?:    )?(?:- )?(pytest .*)$", joined, re.MULTILINE)
    return [re.sub(r"\s+#.*$", "", line) for line in lines]


def anchors(text: str) -> list[str]:
    """Return the anchors of a page's headings in their order, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", text), re.MULTILINE)
    return [
        re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings
    ]


def run_shell(
    code: str, folder: Path, environ: Mapping[str, str] = {}, *, timeout_s: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run a block as a reader does, in the shell, with the environment's programs."""
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        ["bash", "-c", code],
        cwd=folder,
        env={**os.environ, "PATH": path, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
    )


DEMO = ("--vlm-model=demo", "--pyargs", "pytest_vlmeval.benchmarks.test_demo")
