"""The file of thresholds: its form, which of them counts, and what is a mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.gates.thresholds import (
    RULES,
    Rule,
    Threshold,
    Thresholds,
    is_typo,
    load_thresholds,
)

KNOWN = ("MMStar", "MME", "MMBench_DEV_EN", "my")


def load(folder: Path, text: str) -> Thresholds:
    path = folder / "thresholds.toml"
    path.write_text(text, encoding="utf-8")
    return load_thresholds(None, [folder])


def refusal(folder: Path, text: str, model: str = "qwen-vl-chat") -> str:
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
    assert says in refusal(tmp_path, text)


def test_what_a_refusal_advises_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "mine.tsv").touch()
    for wrong, right, dataset in (
        ("m.MMStarr", "m.MMStar", "MMStar"),
        ("m.'mine.tsv'", "m.'near/mine.tsv'", "mine"),
        ("qwen2.5-vl*.MMStar", '"qwen2.5-vl*".MMStar', "MMStar"),
    ):
        refusal(tmp_path, f"[{wrong}]\nmin = 1")
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
    for given, minimum in ((path, 3), (folders[1] / "thresholds.toml", 2)):
        (found,) = load_thresholds(given, folders).of("m", "MMStar")
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
