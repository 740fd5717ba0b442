"""The recipes of benchmarks newer than ms-vlmeval, from a hub to their metrics."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

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
    result.assert_outcomes(passed=28, xfailed=14)
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
    again.assert_outcomes(passed=28, xfailed=14, deselected=5)
    assert len(server.requests()) == count


baby = importlib.import_module("benchmarks.test_babyvision")
jmmmu = importlib.import_module("benchmarks.test_jmmmu_pro")
measure = importlib.import_module("benchmarks.test_measurebench")
tir = importlib.import_module("benchmarks.test_tir_bench")


@pytest.mark.parametrize(
    ("text", "box"),
    [
        (r"\boxed{A} or \boxed{B}", "B"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        ("So <|begin_of_box|> (2,3) <|end_of_box|>.", "(2,3)"),
        (r"\boxed{never closed", None),
        ("B", None),
    ],
)
def test_babyvision_reads_the_last_box(text: str, box: str | None) -> None:
    assert baby.read_box(text) == box


@pytest.mark.parametrize(
    ("said", "known", "same"),
    [
        ("( 4 , 7 )", "(4,7)", True),
        ("4,7", "(4,7)", True),
        ("（4，7）", "(4,7)", True),  # noqa: RUF001
        ("12.0", "12", True),
        ("12.05", "12", False),
        (r"\text{ Left }.", "left", True),
        ("3A", "3B", False),
        ("13", "3", False),
    ],
)
def test_babyvision_compares_blanks(said: str, known: str, same: bool) -> None:
    assert (baby.normalise(said) == baby.normalise(known)) is same


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("B. two cats", "B"),
        ("Option C", "C"),
        ("Two  cats", "B"),
        ("D", None),
        ("B. a dog", None),  # the letter of one, the text of another
        ("apple", None),
    ],
)
def test_babyvision_reads_a_choice(text: str, letter: str | None) -> None:
    assert baby.read_choice(text, ["a dog", "two cats", "a bird"]) == letter


@pytest.mark.parametrize(
    ("said", "interval", "units", "found"),
    [
        ("9.6 A", [9.5, 9.7], ["A"], (True, True)),
        ("9.5", [9.5, 9.7], ["A"], (True, False)),
        ("12 to 9.6 a", [9.5, 9.7], ["A"], (True, True)),
        ("-3 °C", [-3.5, -2.5], ["°C"], (True, True)),
        ("1/0 bar", [0, 2], ["bar"], (False, True)),
        ("11:16 or 5:00", ["11:15:59", "11:16:01"], [], (True, None)),
        ("quarter past", ["11:15:59", "11:16:01"], [], (False, None)),
        ("5 µA", [4, 6], ["\u03bcA"], (True, True)),
    ],
)
def test_measurebench_compares_number_and_unit(
    said: str, interval: list[object], units: list[str], found: tuple[bool, bool | None]
) -> None:
    reading = measure.compare(said, interval, units)
    assert (reading.number, reading.unit) == found


def test_measurebench_takes_the_best_of_several_intervals() -> None:
    kwargs = {"intervals": [[1, 2], [5, 6]], "units": [["bar"], ["psi"]]}
    row = {
        "evaluator": "multi_interval_matching",
        "evaluator_kwargs": json.dumps(kwargs),
    }
    assert measure.judge("5.5 psi", row).is_right
    # Each interval has its own units; of two halves the nearer number counts.
    half = measure.judge("5.5 bar", row)
    assert (half.is_right, half.number, half.unit) == (False, True, False)
    shared = row | {"evaluator_kwargs": json.dumps(kwargs | {"units": ["bar"]})}
    assert measure.judge("5.5 bar", shared).is_right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("Ｂ", "B"),  # noqa: RUF001
        ("正解は【C】です", "C"),
        ("The answer is **D**.", "D"),
        ("Answer a question: none", None),
        ("AとBのうち、Bです", "B"),
        ("A. 東京", "A"),
        ("A. 東京\nB. 大阪", None),
        ("E", None),
        ("I think", None),
    ],
)
def test_jmmmu_pro_reads_a_letter(text: str, letter: str | None) -> None:
    assert jmmmu.read_letter(text, "ABCD") == letter


@pytest.mark.parametrize(
    ("text", "count", "letters"),
    [
        ("B", 1, "B"),
        ("**Answer: C.** It is", 1, "C"),
        (r"\boxed{\text{D}}", 1, "D"),
        ("(A) is too small, so (C)", 1, "C"),
        ("A brown dog is there, so B", 1, "B"),
        ("A is right", 1, "A"),
        ("I see nothing", 1, ""),
        ("DC", 2, "CD"),
        ("The answer is C, D", 2, "CD"),
    ],
)
def test_tir_bench_reads_letters(text: str, count: int, letters: str) -> None:
    assert tir.read_letters(text, count) == letters


def test_tir_bench_reads_numbers_and_lists() -> None:
    assert tir.read_number("The answer is 4 of 12") == "4"
    assert tir.read_number("I counted 4, then 12.") == "12"
    assert tir.read_number("It costs 1,200 yen") == "1200"
    assert tir.read_number("none") == ""
    assert tir.read_list("Rows 1, 2; in the end [3, 6]") == [3, 6]
    assert tir.read_list("7") == [7]
    assert tir.read_order("Piece 5 first. 4, 1,\n3, 2", 4) == [4, 1, 3, 2]
    assert tir.read_order("4, 1, 3", 4) == []
