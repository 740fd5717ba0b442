"""Baselines on disk: what is written is read again, small, and readable in a diff."""

from __future__ import annotations

import difflib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    BaselineVerdict,
    place_baseline,
    read_baseline,
    read_runs,
    write_baseline,
    write_runs,
)
from tests.support.baseline_files import make, make_verdicts

PATH = Path("benchmarks/__baselines__/tiny/Table.json")


def by_category(baseline: Baseline) -> Baseline:
    """Put the verdicts into the order of a file."""
    return replace(
        baseline, verdicts=tuple(sorted(baseline.verdicts, key=lambda it: it.category))
    )


@pytest.mark.parametrize(
    ("indexes", "text"),
    [
        (["1", "2", "3", "7", "9", "10"], "1-3 7 9-10"),
        (["10", "9", "8"], "10 9 8"),
        (["007", "008", "9"], "007 008 9"),
        (["a b", "a-1", "5%", "ü", "x_1.5"], "a%20b a%2D1 5%25 %C3%BC x_1.5"),
        (["9", "10", "99", "100", "x"], "9-10 99-100 x"),
    ],
)
def test_indexes_are_written_as_runs(indexes: list[str], text: str) -> None:
    assert write_runs(indexes) == text
    assert read_runs(text, most=len(indexes)) == indexes


def test_what_is_written_is_read_again() -> None:
    baseline = make(make_verdicts(400))
    assert read_baseline(PATH, write_baseline(baseline)) == by_category(baseline)


def test_grades_keep_four_digits() -> None:
    values = [0.1234, 1.0, None, 0.0, 0.5]
    verdicts = tuple(
        BaselineVerdict(index=str(index), category="", value=value)
        for index, value in enumerate(values)
    )
    text = write_baseline(make(verdicts))
    assert '"0-4": "0.1234 + ? - 0.5000"' in text
    assert read_baseline(PATH, text).verdicts == verdicts
    one = verdicts[:1]
    assert read_baseline(PATH, write_baseline(make(one))).verdicts == one


def test_a_flip_is_one_line_of_a_diff() -> None:
    verdicts = make_verdicts(1_500)
    flipped = replace(verdicts[700], value=0.0 if verdicts[700].value else 1.0)
    before = write_baseline(make(verdicts))
    after = write_baseline(make((*verdicts[:700], flipped, *verdicts[701:])))
    changed = [
        line
        for line in difflib.unified_diff(before.split("\n"), after.split("\n"), n=0)
        if line[0] in "+-" and line[1:3] not in ("++", "--")
    ]
    assert len(changed) == 2
    assert max(map(len, before.split("\n"))) < 120


def test_fifteen_thousand_samples_are_small() -> None:
    verdicts = tuple(replace(each, category="one") for each in make_verdicts(15_000))
    assert len(write_baseline(make(verdicts))) < 30_000


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<<<<<<< HEAD", "Expecting value"),
        ("[]", "it is no JSON object"),
        ("{}", "'format'"),
        ('{"format": 99}', "its format is another one"),
        ('{"format": 1, "model": "m", "colour": 2}', "colour"),
    ],
)
def test_what_is_no_baseline_is_named_with_its_file(text: str, why: str) -> None:
    with pytest.raises(VlmEvalError) as caught:
        read_baseline(PATH, text)
    message = str(caught.value)
    assert message.startswith(f"{PATH} is not a baseline that this version can read (")
    assert why in message
    assert message.endswith(
        "Take it back from version control, or run the same command with "
        "--snapshot-update to write it anew."
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"samples": 60', '"samples": 61'),
        (
            "+",
            "",
        ),
        ("+", "x"),
        ('"1 7 13', '"1 7'),
    ],
)
def test_a_damaged_baseline_is_refused(old: str, new: str) -> None:
    text = write_baseline(make(make_verdicts(60)))
    assert old in text
    with pytest.raises(VlmEvalError, match="is not a baseline"):
        read_baseline(PATH, text.replace(old, new, 1))


def test_the_path_is_by_model_and_dataset(tmp_path: Path) -> None:
    place = place_baseline(Path("benchmarks"), tmp_path, "Qwen/Qwen2-VL 2B", "MMStar")
    path = "benchmarks/__baselines__/Qwen_Qwen2-VL_2B/MMStar.json"
    assert place.own.as_posix() == place.found.as_posix() == path


@pytest.mark.parametrize("installed", ["site-packages", "dist-packages"])
def test_nothing_is_written_where_packages_are_installed(
    tmp_path: Path, installed: str
) -> None:
    package, project = tmp_path / installed / "suite", tmp_path / "project"
    brought = package / "__baselines__/tiny/Table.json"
    own = project / "__baselines__/tiny/Table.json"

    def place() -> BaselinePlace:
        return place_baseline(package, project, "tiny", "Table")

    assert place() == BaselinePlace(own, own)
    for path, found in ((brought, brought), (own, own)):
        path.parent.mkdir(parents=True)
        path.touch()
        assert place() == BaselinePlace(own, found)


def test_the_file_is_json_that_a_person_reads() -> None:
    text = write_baseline(make(make_verdicts(12)))
    record = json.loads(text)
    assert list(record)[:4] == ["format", "model", "dataset", "main_metric"]
    assert list(record["verdicts"]) == sorted(record["verdicts"])
