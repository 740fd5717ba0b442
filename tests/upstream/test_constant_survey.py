"""Each dataset of the card, answered by models that say the same to everything.

What they score is in `constant_answers.json`, which `--write-docs` writes anew; the
table in the documentation is made of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.datasets.catalog import load_catalog
from tests.support.conformance import card
from tests.support.constant_answers import (
    ANSWERS,
    SCORINGS,
    as_table,
    read_survey,
    survey,
    write_survey,
)
from tests.support.documentation import ROOT, read
from tests.support.judged_rows import rows_only
from tests.support.sandbox_tables import FIXTURES, score, shared_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pytest_vlmeval.records import DatasetInfo
    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

DOCS = ROOT / "docs" / "datasets.md"
BEGIN = "<!-- The test of constant answers writes this table. -->\n"
END = "<!-- Until here. The test of constant answers wrote it. -->\n"
# Their verdicts are not made without an add-on.
NEEDING = ("COCO_VAL", "VCR_")
# Why a published score is above what its references give, by dataset and answer.
ABOVE_CHANCE = {
    ("MMMU_DEV_VAL", "A"): "an open question gets the options A, its reference",
    ("MathVision", "A"): "evaluated as Python among the variables",
    ("MathVision_MINI", "A"): "evaluated as Python among the variables",
}
# Scores that are no share of right verdicts: their metric counts otherwise.
METRICS = {
    "MME": "points of both halves",
    "HallusionBench": "mean of three accuracies",
    "POPE": "F1",
    "MMMU_DEV_VAL": "of the split",
}


def marked(name: str) -> object:
    """Give a dataset's name, marked where it needs an add-on."""
    marks = [pytest.mark.addons] if name.startswith(NEEDING) else [pytest.mark.slow]
    return pytest.param(name, marks=marks)


@pytest.fixture(scope="module")
def catalog(
    sandbox_environment: SandboxEnvironment, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, DatasetInfo]:
    """Give all datasets by name."""
    folder = tmp_path_factory.mktemp("catalog")
    return load_catalog(sandbox_environment, folder)


@pytest.mark.skipif(not FIXTURES.is_dir(), reason="no seed fixtures")
@pytest.mark.parametrize("name", [marked(name) for name in card()])
def test_constant_answers_score_what_is_written_down(
    catalog: dict[str, DatasetInfo],
    sandbox_of: Callable[[str], Sandbox],
    tmp_path: Path,
    name: str,
    request: pytest.FixtureRequest,
) -> None:
    info = catalog[name]
    # The prompts of MMLongBench_DOC alone need its add-on.
    sandbox = sandbox_of(info.class_name if name.startswith(NEEDING) else "")
    found = survey(sandbox, info, tmp_path)
    if request.config.getoption("--write-docs"):
        write_survey(name, found)
    assert found == read_survey()[name], "write it anew with --write-docs"


def test_every_dataset_of_the_card_is_written_down() -> None:
    found = read_survey()
    assert list(found) == card()
    assert {name for name, scores in found.items() if isinstance(scores, str)} == {
        "MLLMGuard_DS",
        "MMMU_TEST",
        "DocVQA_TEST",
        "InfoVQA_TEST",
    }


@pytest.mark.parametrize("answer", ANSWERS)
def test_corrected_scoring_is_at_chance(answer: str) -> None:
    """What is right is what has this answer for its reference, and nothing else.

    A copied question gets at most what guessing does.
    """
    for name, scores in read_survey().items():
        if isinstance(scores, str):
            assert "has no reference answers" in scores
            continue
        (chance,) = scores[answer]["chance"]
        right = scores[answer]["corrected"][1]
        if ANSWERS[answer] is None:
            assert right <= chance, name
        else:
            assert right == chance, name


def test_every_published_score_above_chance_is_explained() -> None:
    """In the table of known defects, or by what the metric counts."""
    page = read(DOCS)
    above, otherwise = set(), set()
    for name, scores in read_survey().items():
        for answer, found in scores.items() if isinstance(scores, dict) else ():
            points, right, count = found["published"]
            if right > found["chance"][0]:
                above.add((name, answer))
            elif abs(points - 100 * right / count) > 0.06:
                otherwise.add(name)
    assert otherwise == set(METRICS)
    assert all(why in page.partition(END)[2] for why in METRICS.values())
    assert above == set(ABOVE_CHANCE)
    for (name, _), why in ABOVE_CHANCE.items():
        rows = [
            line for line in page.splitlines() if line.startswith("|") and why in line
        ]
        assert any(name in row for row in rows), name


def test_the_documentation_has_what_was_found(request: pytest.FixtureRequest) -> None:
    table = as_table(read_survey())
    text = read(DOCS)
    head, _, rest = text.partition(BEGIN)
    if request.config.getoption("--write-docs"):
        DOCS.write_text(f"{head}{BEGIN}{table}{END}{rest.partition(END)[2]}", "utf-8")
    assert rest.partition(END)[0] == table, (
        f"{DOCS.name} is not what was found: write it anew with --write-docs"
    )


@pytest.mark.slow
def test_a_server_that_says_a_to_everything_on_the_real_questions(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Of 304 questions 156 are right as published: 44 are, and 112 of 113 free-form."""
    table = pd.read_csv(
        shared_file("LMUData", "MathVision_MINI.tsv"),
        sep="\t",
        dtype=str,
        keep_default_na=False,
    ).drop(columns="image")
    rows = [{str(k): v for k, v in row.items()} for _, row in table.iterrows()]
    prepared = rows_only(tmp_path, "MathVision", rows, "MathVision_MINI")
    answers = [(row["index"], "A") for row in rows]
    published, corrected = (
        score(sandbox, prepared, answers, None, scoring) for scoring in SCORINGS
    )
    share = sum(row["answer"] == "A" for row in rows) / len(rows)
    assert len(rows) == 304
    assert published.value == pytest.approx(51.32, abs=0.005)
    assert published.sound is not None
    assert published.sound.defects == 112
    assert published.sound.value == corrected.value == pytest.approx(100 * share)
    # "(A)" is read as A; the others are no option's letter, and no number.
    for said, right in (("(a)", share), ("+a", 0), ("a or b", 0), ("asw", 0)):
        answers = [(row["index"], said) for row in rows]
        found = score(sandbox, prepared, answers, None, "corrected")
        assert found.value == pytest.approx(100 * right), said
