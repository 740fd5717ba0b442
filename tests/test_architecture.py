"""The directions of the imports, and who alone may import what."""

from __future__ import annotations

import ast
import functools
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import pytest_vlmeval

pytestmark = pytest.mark.once

PACKAGE = Path(pytest_vlmeval.__file__).parent

# From what all others need to what sees all others: a room imports only those before
# it, or itself. The names are those of the top of the package.
ROOMS = (
    # Apart from the records, which every session would load: 30 ms.
    "errors",
    "records",
    "settings",
    "sandbox",
    "models",
    "datasets",
    "gates",
    "run",
    "reports",
    "suite",
    "evaluation",
    "plugin",
)
MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """Return a module's dotted name below the package."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def room_of(module: str) -> int:
    """Return the place of a module's room in the order."""
    return ROOMS.index(module.split(".")[0])


def test_the_rooms_are_all_there_is() -> None:
    # A checkout that was updated may keep the bytecode of folders that are gone.
    there = [
        path for path in PACKAGE.iterdir() if path.is_file() or any(path.rglob("*.py"))
    ]
    found = {path.name.removesuffix(".py") for path in there}
    assert found - {"__pycache__", "py.typed", "__init__"} == set(ROOMS)


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Walk over everything but what only type checkers read."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from nodes(child)


@functools.cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the modules that a module imports, lazily or not."""
    found = []
    for node in nodes(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} uses a relative import"
            found.append(str(node.module))
            if node.module in ("pytest_vlmeval", "pytest_vlmeval.sandbox.inside"):
                found += [f"{node.module}.{alias.name}" for alias in node.names]
    return tuple(found)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    module = name_of(path)
    if module == "__init__":
        assert set(imports(path)) <= {
            "__future__",
            "typing",
            "pytest_vlmeval.suite",
            "importlib",
            "importlib.metadata",
        }
        return
    for imported in imports(path):
        if imported.startswith("pytest_vlmeval."):
            other = imported.removeprefix("pytest_vlmeval.")
            assert room_of(other) <= room_of(module), f"{module} imports {other}"


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        # Inside the sandbox it is imported by computed names.
        ("vlmeval", {"sandbox.inside"}),
        ("openai", {"models.endpoint"}),
        ("onnxruntime", {"models.demo"}),
        ("sqlalchemy", {"run.store"}),
        ("syrupy", {"suite"}),
        ("scipy", {"gates"}),
        ("ray", {"models.cluster"}),
        ("yaml", {"settings.task_file"}),
        ("pytest", {"suite", "plugin", "reports"}),
        ("_pytest", {"suite.selection", "settings.sources"}),
        ("pandas", {"evaluation", "datasets.own", "sandbox.inside", "models.inside"}),
    ],
)
def test_only_one_part_imports(library: str, allowed: set[str]) -> None:
    found = {
        name_of(path)
        for path in MODULES
        if any(name.split(".")[0] == library for name in imports(path))
    }
    stray = {
        module
        for module in found
        if not any(module == name or module.startswith(name + ".") for name in allowed)
    }
    assert not stray


# Imported by another name than they are installed by, or with what they are part of.
DISTRIBUTIONS = {
    "PIL": "pillow",
    "yaml": "pyyaml",
    "_pytest": "pytest",
    "allure": "allure-pytest",
    "pytest_html": "pytest-html",
    "pydantic_core": "pydantic",
    "aiohttp": "openai",
}
# What reports and tests go along with where it is installed.
ALONGSIDE = {"allure-pytest", "pytest-html"}


def test_what_is_imported_is_declared() -> None:
    """Each library is a dependency or of an extra, and each dependency is imported."""
    text = PACKAGE.parent.joinpath("pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    extras = [
        each
        for name in ("xlsx", "ray")
        for each in project["optional-dependencies"][name]
    ]
    needed, optional = (
        {re.split(r"[^\w-]", each)[0].lower() for each in lines}
        for lines in (project["dependencies"], extras)
    )
    imported = {
        DISTRIBUTIONS.get(library, library.lower())
        for path in MODULES
        # These run in environments of their own.
        if "inside" not in path.parts
        for library in (name.split(".")[0] for name in imports(path))
        if library not in {*sys.stdlib_module_names, "pytest_vlmeval"}
    }
    assert imported <= needed | optional | ALONGSIDE
    # xdist is a plugin of its own.
    assert needed <= imported | {"pytest-xdist"}


def test_only_the_options_read_the_environment() -> None:
    readers = set()
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute | ast.Name):
                name = node.attr if isinstance(node, ast.Attribute) else node.id
                if name in ("environ", "getenv"):
                    readers.add(name_of(path))
    # Inside the sandbox ms-vlmeval itself reads its environment, and is given one.
    assert {name for name in readers if not name.startswith("sandbox.inside")} == {
        "settings.sources"
    }


TESTS = sorted(Path(__file__).parent.rglob("*.py"))


def test_no_test_module_is_imported_by_another() -> None:
    """What several use lies in tests/support."""
    imported = {
        (path.name, name)
        for path in TESTS
        for name in imports(path)
        if name.startswith("tests.") and not name.startswith("tests.support")
    }
    assert not imported
