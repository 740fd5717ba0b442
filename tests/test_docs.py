"""The documentation: links lead somewhere, code is code, options exist and are told."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from pytest_vlmeval.gates.thresholds import load_thresholds
from pytest_vlmeval.settings import load_from
from pytest_vlmeval.settings.option import Option
from pytest_vlmeval.settings.sources import call_sources
from pytest_vlmeval.settings.table import COMMANDS, OPTIONS
from tests.support.documentation import (
    ALL,
    LINK,
    PAGES,
    ROOT,
    anchors,
    blocks,
    commands,
    read,
)
from tests.support.languages import parts

pytestmark = pytest.mark.once

FLAGS = {option.flag: option for option in OPTIONS}
KEYS = {"VLM_API_KEY", "VLM_JUDGE_API_KEY"}
OPTIONS_PAGE = ROOT / "docs/options.md"
BEGIN, END = (
    "<!-- The test of the documentation writes this. -->",
    "<!-- Until here. -->",
)
PAGE = pytest.mark.parametrize(
    "path", ALL, ids=lambda path: f"{path.relative_to(ROOT)}"
)


@PAGE
def test_links_lead_somewhere(path: Path) -> None:
    text = read(path)
    for link in LINK.findall(text):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {link}"
        assert not anchor or anchor in anchors(read(target)), f"{path.name}: {link}"


@PAGE
def test_options_and_variables_exist(path: Path) -> None:
    text = read(path)
    assert set(re.findall(r"--vlm-[a-z-]+[a-z]", text)) <= set(FLAGS) | set(COMMANDS)
    known = {option.env for option in OPTIONS} | KEYS
    assert set(re.findall(r"\bVLM_[A-Z_]+", text)) <= known
    known = {option.ini for option in OPTIONS}
    assert set(re.findall(r"`(vlm_[a-z_]+) = ", text)) <= known


@PAGE
def test_commands_are_accepted(path: Path) -> None:
    for line in commands(read(path)):
        for word in shlex.split(line):
            flag, equals, value = word.partition("=")
            if flag in FLAGS:
                # A flag stands alone; anything else has a value that is accepted.
                assert bool(equals) != (FLAGS[flag].placeholder is None), line
                assert not equals or FLAGS[flag].parse(value) is not None
            elif word.startswith("benchmarks/"):
                assert (ROOT / word.partition("::")[0]).exists(), line


@PAGE
def test_code_is_code(path: Path, tmp_path: Path) -> None:
    for block in blocks(read(path)):
        assert block.language in {"sh", "python", "toml", "yaml", "json"}, block
        if block.language == "json":
            assert all(json.loads(line) for line in block.code.splitlines())
        if block.language == "python":
            compile(block.code, path.name, "exec")
        if block.language == "toml" and "tool" in tomllib.loads(block.code):
            (tmp_path / "pyproject.toml").write_text(block.code, encoding="utf-8")
            assert load_from(call_sources({}, tmp_path, {}))
        elif block.language == "toml":
            assert tomllib.loads(block.code)
            (tmp_path / "thresholds.toml").write_text(block.code, encoding="utf-8")
            assert load_thresholds(None, [tmp_path]).path


@PAGE
def test_rows_have_the_cells_of_their_table(path: Path) -> None:
    table = ""
    for part in parts(read(path)):
        row = part.kind if part.text.startswith("|") else ""
        assert not table or not row or row == table, part
        table = row


@PAGE
def test_files_that_are_named_exist(path: Path) -> None:
    places = [ROOT, *(ROOT / "pytest_vlmeval").rglob("*/"), ROOT / "pytest_vlmeval"]
    # What the tutorial and --vlm-init write.
    written = {"test_shapes.py", "benchmarks/test_benchmarks.py"}
    shown = {block.note for block in blocks(read(path))} | written
    for name in set(re.findall(r"`([a-z_/]+(?:\.py|/))`", read(path))) - shown:
        if name == "run.py":  # ms-vlmeval's
            continue
        assert any((place / name).exists() for place in places), name


def test_pictures_are_small_and_each_is_shown() -> None:
    pictures = [*(ROOT / "docs/images").iterdir()]
    shown = "".join(read(path) for path in PAGES)
    for path in pictures:
        assert f"](images/{path.name})" in shown, path
        assert path.stat().st_size < 100_000, path
    script = read(ROOT / "docs/screenshot.py")
    assert {path.stem for path in pictures} == {
        *re.findall(r'take\("([a-z-]+)"', script)
    }


def test_the_index_leads_to_every_page() -> None:
    linked = set(LINK.findall(read(ROOT / "docs/index.md")))
    assert {path.name for path in PAGES} - {"index.md"} <= linked
    linked = set(LINK.findall(read(ROOT / "README.md")))
    pages = {f"docs/{path.name}" for path in PAGES}
    assert pages <= linked


def test_all_parts_are_in_the_architecture() -> None:
    table = read(ROOT / "docs/architecture.md")
    for path in (ROOT / "pytest_vlmeval").iterdir():
        # A checkout that was updated may keep the bytecode of folders that are gone.
        if path.is_dir() and not any(path.rglob("*.py")):
            continue
        part = path.name if path.suffix == ".py" else f"{path.name}/"
        if part not in {"__init__.py", "py.typed/", "__pycache__/"}:
            assert f"`{part}`" in table, part


def cell(text: str) -> str:
    """Return a text as it stands in a table's cell."""
    escaped = text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
    return re.sub(r"(?<![\w`])(--vlm-[a-z-]+(?:=[\w.]+)?)", r"`\1`", escaped)


def rows(options: tuple[Option, ...]) -> Iterator[str]:
    """Write a row for each option."""
    for option in options:
        value = f"={option.placeholder}" if option.placeholder else ""
        name = f"`{option.flag}{value}`".replace("|", "\\|")
        default = "" if option.default is None else f"`{option.default}`"
        takes = cell(option.parse.accepts) if option.placeholder else "given or not"
        yield f"| {name} | {takes} | {default} | {cell(option.help)} |"


def reference() -> str:
    """Write the tables of all options and commands."""
    lines = ["| option | takes | default | what it does |", "| --- | --- | --- | --- |"]
    lines += rows(OPTIONS)
    lines += ["", "Instead of tests:", "", "| option | what it does |", "| --- | --- |"]
    lines += [f"| `{name}` | {cell(text)} |" for name, text in COMMANDS.items()]
    return "\n".join(lines)


def test_the_reference_has_every_option(request: pytest.FixtureRequest) -> None:
    before, _, rest = read(OPTIONS_PAGE).partition(BEGIN)
    _, _, after = rest.partition(END)
    text = f"{before}{BEGIN}\n{reference()}\n\n{END}{after}"
    if request.config.getoption("--write-docs"):
        OPTIONS_PAGE.write_text(text, encoding="utf-8")
    assert read(OPTIONS_PAGE) == text, (
        "docs/options.md is not what the options say: write it anew by "
        "pytest tests/test_docs.py --write-docs"
    )
