"""Baselines on disk: what is written is read again, small, and readable in a diff."""

from __future__ import annotations

import json
import zlib
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
    write_baseline,
)
from tests.support.baseline_files import git_diff, make, make_verdicts

PATH = Path("benchmarks/__baselines__/tiny/Table.json")


def by_category(baseline: Baseline) -> Baseline:
    """Put the verdicts into the order of a file."""
    return replace(
        baseline, verdicts=tuple(sorted(baseline.verdicts, key=lambda it: it.category))
    )


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
    written = json.loads(text)["verdicts"][""]
    assert list(written.values()) == ["0.1234", "right", "none", "wrong", "0.5"]
    assert read_baseline(PATH, text).verdicts == verdicts
    one = verdicts[:1]
    assert read_baseline(PATH, write_baseline(make(one))).verdicts == one


@pytest.mark.parametrize("index", ["007", "a b", "a-1", "5%", "ü", '"', "x_1.5"])
def test_any_index_is_kept(index: str) -> None:
    verdicts = (BaselineVerdict(index=index, category="c", value=1.0),)
    text = write_baseline(make(verdicts))
    assert read_baseline(PATH, text).verdicts == verdicts


@pytest.mark.parametrize("place", [0, 700, 1_499])
def test_a_flip_is_one_line_of_a_diff(tmp_path: Path, place: int) -> None:
    """The line has the sample's id, the verdict before and the one now."""
    verdicts = tuple(
        replace(each, value=float(each.index == "700")) for each in make_verdicts(1_500)
    )
    flipped = replace(verdicts[place], value=1.0 - (verdicts[place].value or 0.0))
    after = (*verdicts[:place], flipped, *verdicts[place + 1 :])
    found = git_diff(
        tmp_path,
        write_baseline(make(verdicts)),
        write_baseline(replace(make(after), value=50.1, correct=4)),
    )
    was, now = ("right", "wrong") if verdicts[place].value else ("wrong", "right")
    changed = [line.rstrip(",") for line in found if line[1:4] == "   "]
    index = flipped.index
    assert changed == [f'-   "{index}": "{was}"', f'+   "{index}": "{now}"']
    others = [line.split(":")[0] for line in found if line[1:4] != "   "]
    assert others == ['- "value"', '+ "value"', '- "correct"', '+ "correct"']


@pytest.mark.parametrize("count", [5_000, 15_000])
def test_a_file_is_small(count: int) -> None:
    """It has 20 bytes a sample, of which git keeps 3."""
    text = write_baseline(make(make_verdicts(count))).encode()
    assert len(text) < 21 * count
    assert len(zlib.compress(text)) < 3.2 * count


def test_a_verdict_by_a_defect_is_marked_in_its_line() -> None:
    verdicts = make_verdicts(12)
    kept = tuple(each.index for each in verdicts if each.value)
    baseline = replace(make(by_category(make(verdicts)).verdicts), defects=kept)
    text = write_baseline(baseline)
    assert text.count('": "right by a defect"') == len(kept)
    assert set(read_baseline(PATH, text).defects) == set(kept)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            1,
            "has format 1, of an earlier version of pytest-vlmeval, and this version "
            "reads format 2. Run the same command with --snapshot-update: it writes "
            "the file anew from the stored answers, and `git diff` shows the scores "
            "before and after.",
        ),
        (
            99,
            "has a format that this version of pytest-vlmeval does not know: it reads "
            "format 2. Install the version that wrote the file, or run the same "
            "command with --snapshot-update to write it anew.",
        ),
    ],
)
def test_another_format_is_told_apart_from_a_broken_file(found: int, said: str) -> None:
    record = json.loads(write_baseline(make(make_verdicts(3)))) | {"format": found}
    with pytest.raises(VlmEvalError) as caught:
        read_baseline(PATH, json.dumps(record))
    assert str(caught.value) == f"{PATH} {said}"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<<<<<<< HEAD", "Expecting value"),
        ("[]", "it is no JSON object"),
        ("{}", "'format'"),
        ('{"format": 2, "model": "m", "colour": 2}', "colour"),
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
        ('"7": "', '"1": "'),
        ('"right"', '"rihgt"'),
        ('"right"', '"1.5"'),
        ('"right"', "1"),
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
