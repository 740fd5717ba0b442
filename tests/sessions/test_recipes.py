"""The recipes of benchmarks newer than ms-vlmeval, from a hub to their metrics."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from tests.support.hub_server import HubServer
from tests.support.recipe_rows import ANSWERS, EXPECTED, REPOSITORIES
from tests.support.run_fixtures import Project, endpoint
from tests.support.server_fixtures import ServerProcess

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
RECIPES = [
    path
    for path in sorted(BENCHMARKS.glob("test_*.py"))
    if "pytest.mark.recent" in path.read_text(encoding="utf-8")
]


@pytest.fixture
def recipes(project: Project, hub_environment: HubServer) -> Project:
    """Give a project with all recipes, and a hub with their repositories."""
    for path in RECIPES:
        (project.pytester.path / path.name).write_bytes(path.read_bytes())
    hub_environment.repositories |= REPOSITORIES
    return project


@pytest.mark.slow
def test_each_recipe_scores_rows_of_its_schema(
    recipes: Project, server: ServerProcess, hub_environment: HubServer
) -> None:
    server.control(answers=ANSWERS)
    result = recipes.run(*endpoint(server.url), "--vlm-export=out", "-n2")
    assert result.parseoutcomes().get("failed", 0) == 0
    written = json.loads((recipes.pytester.path / "out" / "results.json").read_text())
    found = {each["name"]: each["score"]["metrics"] for each in written["datasets"]}
    assert found == {name: pytest.approx(each) for name, each in EXPECTED.items()}
    # The main metric is the first that a recipe gives.
    for each in written["datasets"]:
        main = next(iter(EXPECTED[each["name"]]))
        assert each["score"]["main_metric"] == main, each["name"]
    # Prompts are sent as the authors have them, behind their images.
    asked = {str(each["text"]): each["images"] for each in server.requests()}
    assert (
        "Which colour <b3>?\nChoices:\n(A) red\n(B) blue\n(C) (1,2)\nThink about the "
        "question and give your final answer in \\boxed{Answer} format."
    ) in asked
    (two,) = [images for text, images in asked.items() if "<t3>" in text]
    assert isinstance(two, list)
    assert len(two) == 2
    # Each file once, whatever reads it; what was made of them serves offline.
    downloads = hub_environment.downloads()
    assert len(downloads) == len(set(downloads)) == 7
    count = len(server.requests())
    again = recipes.run(*endpoint(server.url), "--vlm-offline")
    assert again.parseoutcomes() == result.parseoutcomes()
    assert len(server.requests()) == count


def load(name: str) -> ModuleType:
    """Return the module of a recipe."""
    return importlib.import_module(f"benchmarks.test_{name}")
