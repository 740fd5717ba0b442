"""The files of gates, thresholds and baselines: their form, mistakes, and damage."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import tempfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.baseline_file import (
    Baseline,
    BaselinePlace,
    BaselineVerdict,
    find_differences,
    find_flips,
    load_baseline,
    place_baseline,
    read_baseline,
    write_baseline,
)
from pytest_vlmeval.gates.thresholds import (
    RULES,
    Rule,
    Threshold,
    Thresholds,
    is_typo,
    load_thresholds,
)
from tests.support.baseline_files import git_diff, make, make_verdicts
from tests.support.damage import Damage, damages, few, refusal

KNOWN = ("MMStar", "MME", "MMBench_DEV_EN", "my")


def load(folder: Path, text: str) -> Thresholds:
    path = folder / "thresholds.toml"
    path.write_text(text, encoding="utf-8")
    return load_thresholds(None, [folder])


def refused(folder: Path, text: str, model: str = "qwen-vl-chat") -> str:
    with pytest.raises(VlmEvalError) as error:
        load(folder, text).check(model, KNOWN)
    return str(error.value).replace(str(folder), "FOLDER")


def test_a_threshold_has_defaults(tmp_path: Path) -> None:
    thresholds = load(tmp_path, "[qwen-vl-chat.MMStar]\nmin = 37.5\n")
    assert thresholds.of("qwen-vl-chat", "MMStar") == [
        Threshold(
            "MMStar", "", 37.5, "confident-below", 0.95, "qwen-vl-chat", source=""
        )
    ]
    assert thresholds.of("qwen-vl-chat", "MME") == ()
    assert thresholds.of("other", "MMStar") == ()


def test_all_that_a_threshold_may_say(tmp_path: Path) -> None:
    text = """
        ["qwen*".MME]
        min = 50
        rule = "point"
        source = "a paper"

        ["qwen*".MME.metrics.perception]
        min = 1_467
        rule = "confident-above"
        level = 0.9
        """
    score, perception = load(tmp_path, text).of("qwen-vl-chat", "MME")
    assert score.rule == "point"
    assert score.source == "a paper"
    assert perception.metric == "perception"
    assert perception.minimum == 1467
    assert perception.rule == "confident-above"
    assert perception.level == 0.9


def test_the_closest_pattern_that_has_the_dataset_counts(tmp_path: Path) -> None:
    text = """
        ["*".MMStar]
        min = 1
        ["*".MME]
        min = 2
        ["qwen-*".MMStar]
        min = 3
        ["qwen-vl-chat"]
        """
    thresholds = load(tmp_path, text)

    def minimum(model: str, dataset: str) -> float:
        (found,) = thresholds.of(model, dataset)
        return found.minimum

    assert minimum("qwen-vl-chat", "MMStar") == 3
    assert minimum("qwen-vl-chat", "MME") == 2
    assert minimum("llava", "MMStar") == 1


def test_no_file_is_no_threshold(tmp_path: Path) -> None:
    thresholds = load_thresholds(None, [tmp_path])
    assert thresholds.path is None
    assert thresholds.of("m", "MMStar") == ()


def test_a_file_that_is_named_counts_alone(tmp_path: Path) -> None:
    load(tmp_path, '["*".MMStar]\nmin = 10')
    other = tmp_path / "other.toml"
    other.write_text('["*".MMStar]\nmin = 20')
    (found,) = load_thresholds(other, [tmp_path]).of("m", "MMStar")
    assert found.minimum == 20


def test_two_files_need_a_choice(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
        load(folder, "")
    with pytest.raises(VlmEvalError) as error:
        load_thresholds(None, [*folders, *folders])
    assert str(error.value).replace(str(tmp_path), "FOLDER") == (
        "There are thresholds in FOLDER/a/thresholds.toml and in "
        "FOLDER/b/thresholds.toml. Name the file that counts with "
        "--vlm-thresholds=FILE."
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "[qwen-vl-chat.MMStarr]\nmin = 1",
            "FOLDER/thresholds.toml: ['qwen-vl-chat'.'MMStarr'] names no dataset. Did "
            "you mean MMStar? Accepted is a dataset that `pytest --vlm-list` shows, or "
            "the path of a table of your own from FOLDER.",
        ),
        (
            '["*"."mine.tsv"]\nmin = 1',
            "FOLDER/thresholds.toml: ['*'.'mine.tsv'] names no dataset. Accepted is a "
            "dataset that `pytest --vlm-list` shows, or the path of a table of your "
            "own from FOLDER.",
        ),
        (
            "[qwen_vl_chat.MMStar]\nmin = 1",
            "FOLDER/thresholds.toml: no threshold is for the model 'qwen-vl-chat', but "
            "there are some for 'qwen_vl_chat'. If it is the same model, write its "
            "name alike in both places, or a pattern (* and ? stand for any text and "
            "letter). If not, say so by an empty table: ['qwen-vl-chat'].",
        ),
        (
            "[m.MMStar]\nmim = 1",
            "FOLDER/thresholds.toml has thresholds that are not accepted:\n"
            "  m.MMStar.mim: is not known. Did you mean min?\n"
            'Accepted is [MODEL.DATASET] with min, rule ("point", "confident-below" or '
            '"confident-above"), level (0.5 to 1), source (a text), accept_defects '
            "and published (true or false), and [MODEL.DATASET.metrics.NAME] with the "
            "same for a further metric.",
        ),
        (
            "[m.MMStar]\nlevel = 0.9",
            "  m.MMStar: give min, or metrics with a min each\n",
        ),
        (
            "[m.MMStar]\nmin = 0.37",
            "  m.MMStar: min = 0.37 looks like a share: a score goes from 0 to 100",
        ),
        (
            "[m.MMStar]\nmin = 'x'",
            "  m.MMStar.min: Input should be a valid number (given: 'x')\n",
        ),
        (
            "[m.MMStar]\nmin = 1\nrule = 'strict'",
            "m.MMStar.rule: Input should be 'point', 'confident-below' or "
            "'confident-above' (given: 'strict')\n",
        ),
        (
            "[m.MMStar]\nmin = 1\nlevel = 95",
            "m.MMStar.level: Input should be less than 1 (given: 95)\n",
        ),
        (
            "[qwen2.5*.MMStar]",
            "FOLDER/thresholds.toml is not TOML: Expected ']' at the end of a table "
            "declaration (at line 1, column 9). A name with a dot, a blank or a * "
            'needs quotes: ["qwen2.5-vl*".MMStar].',
        ),
    ],
)
def test_mistakes_are_told(tmp_path: Path, text: str, says: str) -> None:
    assert says in refused(tmp_path, text)


def test_what_a_refusal_advises_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "mine.tsv").touch()
    for wrong, right, dataset in (
        ("m.MMStarr", "m.MMStar", "MMStar"),
        ("m.'mine.tsv'", "m.'near/mine.tsv'", "mine"),
        ("qwen2.5-vl*.MMStar", '"qwen2.5-vl*".MMStar', "MMStar"),
    ):
        refused(tmp_path, f"[{wrong}]\nmin = 1")
        thresholds = load(tmp_path, f"[{right}]\nmin = 1")
        model = "qwen2.5-vl-7b" if "qwen" in right else "m"
        thresholds.check(model, KNOWN)
        (found,) = thresholds.of(model, dataset)
        assert found.minimum == 1
    # A file in UTF-8, of those that lie beside benchmarks or anywhere else.
    load(tmp_path / "near", '["*".MMStar]\nmin = 2')
    path = tmp_path / "thresholds.toml"
    path.write_bytes('["*".MMStar]\nmin = 3\nsource = "Lübeck"'.encode("latin-1"))
    with pytest.raises(VlmEvalError, match="Give a readable TOML file in UTF-8 with"):
        load_thresholds(None, [tmp_path])
    path.write_bytes(path.read_bytes().decode("latin-1").encode())
    folders = [tmp_path, tmp_path / "near"]
    with pytest.raises(VlmEvalError, match="Name the file that counts with"):
        load_thresholds(None, folders)
    for named, minimum in ((path, 3), (folders[1] / "thresholds.toml", 2)):
        (found,) = load_thresholds(named, folders).of("m", "MMStar")
        assert found.minimum == minimum


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(VlmEvalError) as error:
        load_thresholds(tmp_path / "no.toml", [])
    said = str(error.value)
    assert said.startswith(f"The thresholds in {tmp_path / 'no.toml'} cannot be read: ")
    assert said.endswith("readable TOML file in UTF-8 with --vlm-thresholds=FILE.")


def test_tables_of_ones_own_are_named_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "mine.tsv").touch()
    thresholds = load(tmp_path, '["*"."tables/mine.tsv"]\nmin = 5\n["*".my]\nmin = 6')
    thresholds.check("model", KNOWN)
    (found,) = thresholds.of("model", "mine")
    assert found.minimum == 5


def test_an_empty_table_says_that_models_differ(tmp_path: Path) -> None:
    text = "[qwen_vl_chat.MMStar]\nmin = 1\n[qwen-vl-chat]"
    load(tmp_path, text).check("qwen-vl-chat", KNOWN)


@pytest.mark.parametrize(
    ("pattern", "model", "typo"),
    [
        ("qwen-vl-chat", "Qwen-VL-Chat", True),
        ("qwen-vl-chat", "qwen_vl_chat", True),
        ("qwen-vl-chat", "qwen-vl-caht", True),
        ("qwen-vl-chat", "qwen-vl-chatt", True),
        ("qwen-vl-chat", "qwne-vl-chat", True),
        ("qwen-vl-chat", "Qwen/Qwen-VL-Chat", True),
        ("Qwen/Qwen-VL-Chat", "qwen-vl-chat", True),
        ("mine/qwen-vl-chat", "Qwen/Qwen-VL-Chat", False),
        # Other models.
        ("qwen-vl-chat", "qwen2-vl-chat", False),
        ("qwen2-vl-2b", "qwen2-vl-7b", False),
        ("internvl-s", "internvl-m", False),
        ("qwen-vl-chat", "qwen-vl-base", False),
        ("qwen-vl-chat", "qwen-vl", False),
        ("llava-onevision", "demo", False),
    ],
)
def test_what_is_a_typo(pattern: str, model: str, typo: bool) -> None:
    assert is_typo(pattern, model) == typo


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_each_rule_decides_early_or_says_why_not(rule: Rule) -> None:
    if rule.why_whole:
        assert rule.why_whole.startswith(f"the rule {rule.name} ")
        return
    bounds = rule.bounds(0.6, [1] * 500, 0.95)
    assert bounds.passes is not None
    assert bounds.fails is not None
    assert bounds.fails <= 0.6 <= bounds.passes


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
    # As the page advises.
    shown = subprocess.run(
        ["git", "diff", "--word-diff", "--no-color", "-U0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    (line,) = (line for line in shown.splitlines() if f'"{index}":' in line)
    assert re.search(rf'\[-"{was}",?-\]\s*{{\+"{now}",?\+}}', line), line


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


THRESHOLDS = b"""
[tiny.MMStar]
min = 34.5
rule = "confident-above"
level = 0.99
source = "a paper"

["qwen2.5-vl-*".MME.metrics.perception]
min = 1_400
"""
# What may stand in place of a value.
TOML_VALUES = [
    *("nan", "inf", "-1", "1e400", "9" * 400, "true", '"x"', "[]", "[[1]]", "{a = 1}"),
    *("1979-05-27", "07:32:00", "'''\\u0000'''", '"\\uD800"', "", "0x_1", "{}"),
]
BASELINE = json.loads(write_baseline(make(make_verdicts(60))))
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.sampled_from(
        ["1-99999999999999", "5-1", "+" * 99, "\ud800", "1-", "9" * 5_000]
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=6,
)


def check_thresholds(data: bytes) -> None:
    """Read thresholds and use them; what is said of them names the file."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "thresholds.toml"
        file.write_bytes(data)

        def use() -> None:
            thresholds = load_thresholds(file, ())
            thresholds.check("tiny", ["MMStar", "MME"])
            thresholds.of("tiny", "MMStar")

        told = refusal(use)
        assert not told or str(file) in told
        assert file.read_bytes() == data


@pytest.mark.once
@few
@given(damages)
def test_any_bytes_as_thresholds(damage: Damage) -> None:
    check_thresholds(damage(THRESHOLDS))


@pytest.mark.parametrize("value", TOML_VALUES)
def test_any_value_as_a_threshold_s(value: str) -> None:
    text = THRESHOLDS.decode()
    for was in ("34.5", '"confident-above"', "0.99", '"a paper"', "1_400"):
        check_thresholds(text.replace(was, value).encode())
    check_thresholds(f"tiny = {value}".encode())
    check_thresholds(f"[tiny]\nMMStar = {value}".encode())


def check_baseline(data: bytes) -> None:
    """Read a baseline and compare with it; what is said of it names the file."""
    current = make(make_verdicts(60, seed=1))
    with tempfile.TemporaryDirectory() as name:
        file = Path(name) / "Table.json"
        file.write_bytes(data)

        def use() -> None:
            baseline = load_baseline(file)
            find_differences(baseline, current)
            find_flips(baseline, current)
            write_baseline(baseline)

        told = refusal(use)
        assert not told or str(file) in told
        # It can be printed, whatever stood in the file.
        told.encode()
        assert file.read_bytes() == data


@pytest.mark.once
@few
@given(damages)
def test_any_bytes_as_a_baseline(damage: Damage) -> None:
    check_baseline(damage(json.dumps(BASELINE, indent=1).encode()))


def places(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the keys that lead to each value of a JSON document."""
    found = [path]
    items = value.items() if isinstance(value, dict) else []
    for key, inner in items:
        found += places(inner, (*path, key))
    return found


PLACES = places(BASELINE)[1:]


@pytest.mark.once
@few
@given(st.sampled_from(PLACES), values)
@example(("verdicts", "category 1"), {"1": []})
@example(("verdicts", "category 1", "1"), "right by a defect by a defect")
@example(("verdicts", "category 1"), {"1": "nan"})
@example(("value",), float("nan"))
@example(("generation",), {"temperature": []})
def test_any_value_in_a_baseline(place: tuple[str, ...], value: object) -> None:
    record = copy.deepcopy(BASELINE)
    inner = record
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    check_baseline(json.dumps(record).encode())


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda it: it.update(value="x"), "value: Input should be a valid number"),
        (lambda it: it.update(scale=float("nan")), "scale: Input should be a finite"),
        (
            lambda it: it["verdicts"].update({"category 1": {"1": "+"}}),
            "1 has the verdict '+', and takes right, wrong, none or a number from 0 ",
        ),
        (
            lambda it: it["verdicts"].update({"category 1": {"1": "7.5"}}),
            "1 has the verdict '7.5', and takes right, wrong, none or a number from 0 ",
        ),
    ],
)
def test_what_is_wrong_is_said(
    tmp_path: Path, damage: Callable[[dict[str, Any]], None], why: str
) -> None:
    record = copy.deepcopy(BASELINE)
    damage(record)
    file = tmp_path / "Table.json"
    file.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(VlmEvalError) as raised:
        load_baseline(file)
    start = f"{file} is not a baseline that this version can read ({why}"
    assert str(raised.value).startswith(start)


def test_deep_nesting_is_said(tmp_path: Path) -> None:
    file = tmp_path / "Table.json"
    file.write_text("[" * 100_000, encoding="utf-8")
    with pytest.raises(VlmEvalError, match=r"\(it is nested too deeply\)"):
        load_baseline(file)
