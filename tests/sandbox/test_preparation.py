"""What ms-vlmeval's classes make of a table, and what is kept of its rows: all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.datasets.own import OWN, write_frame
from pytest_vlmeval.datasets.prepare import read_samples, read_samples_of, read_splits
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.records import DatasetInfo, parts_of
from pytest_vlmeval.sandbox.calls import score_in_sandbox
from pytest_vlmeval.sandbox.environment import ADDONS, SandboxEnvironment
from pytest_vlmeval.sandbox.inside import families
from pytest_vlmeval.sandbox.inside.tables import table_of
from pytest_vlmeval.sandbox.process import Sandbox
from pytest_vlmeval.sandbox.rows import (
    COLUMNS,
    FILE,
    SAMPLES,
    frame_of,
    read_frame,
    read_texts,
    write_rows,
    write_samples,
)
from tests.support.hostile_scoring import replies_of
from tests.support.judged_rows import FAMILIES as JUDGED
from tests.support.judged_rows import rows_only
from tests.support.sandbox_calls import run_inside
from tests.support.sandbox_tables import (
    cell,
    describe,
    draw,
    extended_environment,
    media_of,
    prepare,
    rows_of,
    score,
    values,
    write_table,
)
from tests.support.video_rows import CHOICES, GRADED
from tests.support.video_rows import choice_rows as video_choices
from tests.support.video_rows import graded_rows as graded_videos

if TYPE_CHECKING:
    from pytest_vlmeval.records import PreparedDataset
    from tests.support.sandbox_tables import Row


@pytest.fixture(scope="module")
def apart(sandbox_environment: SandboxEnvironment) -> Iterator[Sandbox]:
    """Give a sandbox for classes that are not scored."""
    sandbox = Sandbox(sandbox_environment.python)
    yield sandbox
    sandbox.close()


def info_of(
    folder: Path, class_name: str, module: str, row: Mapping[str, str], name: str
) -> DatasetInfo:
    """Write a table of one row for a class, and describe it."""
    common = {"index": "1", "question": "Which?", "answer": "A"}
    table = write_table(folder / f"{name}.tsv", [{**common, **row}])
    return DatasetInfo(
        name=name, class_name=class_name, module=module, kind="other", path=table
    )


IMAGE = {"image": cell(draw(1))}


@pytest.mark.parametrize(
    ("class_name", "module", "name", "message"),
    [
        (
            "SPBench",
            "spbench",
            "SPBench-MV",
            "SPBench-MV: --vlm-offline is set, and the repository hongxingli/SPBench "
            "is not complete in the cache of Hugging Face, ",
        ),
        (
            "SparBench",
            "sparbench",
            "SparBench",
            "SparBench: ms-vlmeval's SparBench cannot be built (dataset/utils/"
            "spatial_bench/matching_func.py:226: word = num2words(i, lang=lang)). The "
            "package num2words is not in the sandbox's environment. "
            "--vlm-sandbox-python takes an environment that has it: with ms-vlmeval, "
            "what it declares, and num2words.",
        ),
        (
            "OSWorld_G",
            "GUI.osworld_g",
            "OSWorld_G",
            "OSWorld_G: ms-vlmeval's OSWorld_G cannot be built over its table: "
            "KeyError: 'bbox' (dataset/GUI/osworld_g.py:",
        ),
        (
            "MOAT",
            "moat",
            "MOAT",
            "MOAT: its file is missing and cannot be downloaded from https://"
            "huggingface.co/datasets/waltsun/MOAT/resolve/main/MOAT_images.zip: "
            "--vlm-offline is set. Put the file at ",
        ),
        (
            "QSpatial",
            "image_vqa",
            "QSpatial_scannet",
            "QSpatial_scannet asks about images of ScanNet, which its owners give "
            "only to those who apply, and ms-vlmeval takes from a folder written into "
            "its code (dataset/image_vqa.py:2523). It cannot be prepared; a table of "
            "your own, with the images and the questions of "
            "andrewliao11/Q-Spatial-Bench, can.",
        ),
    ],
)
def test_what_cannot_be_built_says_why(
    apart: Sandbox,
    tmp_path: Path,
    class_name: str,
    module: str,
    name: str,
    message: str,
) -> None:
    info = info_of(tmp_path, class_name, module, IMAGE, name)
    with pytest.raises(VlmEvalError) as caught:
        prepare(info, apart, tmp_path)
    assert str(caught.value).startswith(message)


def test_an_environment_that_has_what_lacked_is_taken(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    """As the message says, one of the user's: ms-vlmeval's, and num2words."""
    environment = extended_environment(
        sandbox_environment,
        tmp_path / "own",
        num2words="num2words = lambda i, lang: f'{i} {lang}'\n",
    )
    sandbox = Sandbox(environment.python)
    try:
        row = {**IMAGE, "task": "depth_prediction_oc", "img_type": "single_view"}
        info = info_of(tmp_path, "SparBench", "sparbench", row, "SparBench")
        (sample,) = read_samples(prepare(info, sandbox, tmp_path))
    finally:
        sandbox.close()
    assert sample.error is None


def test_a_class_that_ends_the_process_fails_its_row(
    apart: Sandbox, tmp_path: Path
) -> None:
    row = {"source": "OE_TO_maths_en_COMP", "answer_type": "odd", "unit": ""}
    row["is_multiple_answer"] = "False"
    info = info_of(
        tmp_path, "OlympiadBench", "image_vqa", {**row, **IMAGE}, "OlympiadBench"
    )
    (sample,) = read_samples(prepare(info, apart, tmp_path))
    assert sample.error is not None
    assert (
        "ms-vlmeval cannot make its prompt: SystemExit: Error parsing" in sample.error
    )


@pytest.mark.parametrize(
    ("class_name", "module", "name"),
    [
        ("Design2Code", "design2code", "Design2Code"),  # gives a data URL
        ("ReasonMap_Plus", "reasonmap_plus", "ReasonMap-Plus"),  # gives the cell itself
        ("MMGenBench", "mmgenbench", "MMGenBench-Test"),  # has no method that scores
        ("OmniDocBench", "OmniDocBench.omnidocbench", "OmniDocBench"),  # imports torch
        ("ChartX", "chartx", "ChartX"),  # imports Levenshtein
        ("MMNIAH", "image_vqa", "MM_NIAH_VAL"),  # reads its file itself
    ],
)
def test_images_are_found_whatever_a_class_does(
    apart: Sandbox, tmp_path: Path, class_name: str, module: str, name: str
) -> None:
    row = dict(IMAGE)
    if class_name == "MMNIAH":
        row |= {"question": "['Read.', '<image>?']", "multi-choice options": "[[],[]]"}
    prepared = prepare(
        info_of(tmp_path, class_name, module, row, name), apart, tmp_path
    )
    (sample,) = read_samples(prepared)
    assert sample.error is None
    assert "image" in {part.kind for part in parts_of(sample.prompt)}
    assert media_of(prepared) == {hashlib.sha256(draw(1)).hexdigest() + ".png"}


def test_texts_alone_are_asked_too(apart: Sandbox, tmp_path: Path) -> None:
    info = DatasetInfo(
        name="XSTest",
        class_name="XSTestDataset",
        module="xstest",
        kind="other",
        modality="text",
        url="https://opencompass.openxlab.space/utils/VLMEval/XSTest.tsv",
        path=write_table(tmp_path / "X.tsv", [{"index": "1", "question": "Which?"}]),
    )
    (sample,) = read_samples(prepare(info, apart, tmp_path))
    assert [part.kind for part in parts_of(sample.prompt)] == ["text"]
    assert "Which?" in sample.prompt[0][0].text


# As MMMU has it: `\rightarrow`, not escaped where the table was written.
LONE = "Ag $\rightarrow$ Zn"
ODD = [
    LONE,
    *("\r", "\r\n", "\n", "\t", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028"),
    *(f"<{chr(code)}>" for code in range(32)),
    *("<\x7f>", "\ufeff", "\ufffe", "\U0001f5bc", "e\u0301"),
    *('"', '""', '"quoted"', "'", "a\tb", 'a"\tb', '\\"', "\\", "#", " blank "),
    *("007", "1.50", "NA", "None", "null", "nan", "1e400", "=B", "-", "True"),
    "x" * 2**20,
]
TWO = ["x", "y"]
NUMBERS = ["7317", "8317"]
OPTIONS = {"A": ["red"] * 2, "B": ["blue"] * 2}
OCR = {"category": ["Regular Text Recognition"] * 2}
TYPED = {
    "question_type": ["free_form"] * 2,
    "answer_type": ["integer"] * 2,
    "choices": ["[]"] * 2,
    "precision": ["0"] * 2,
    "answer_option": NUMBERS,
    "skills": ["['arithmetic']"] * 2,
    "task": ["sums"] * 2,
}
# Name, class, references, further columns, the answer to the first; all is wrong of
# the second.
FAMILIES: list[tuple[str, str, Sequence[str], Mapping[str, list[str]], str]] = [
    ("MMStar", "ImageMCQDataset", "AB", OPTIONS, "A"),
    ("Own_circular", "ImageMCQDataset", "AB", OPTIONS, "A"),
    ("MMMU_DEV_VAL", "MMMUDataset", "AB", OPTIONS, "A"),
    ("POPE", "ImageYORNDataset", ["Yes", "No"], OCR, "Yes"),
    ("DocVQA_VAL", "ImageVQADataset", ["['x']", "['y']"], {}, "x"),
    ("ChartQA_TEST", "ImageVQADataset", TWO, {"split": ["val"] * 2}, "x"),
    ("MathVision", "MathVision", TWO, {"choices": ["[]"] * 2, **OCR}, "x"),
    ("MathVista_MINI", "MathVista", NUMBERS, TYPED, "7317"),
    ("OCRBench", "OCRBench", ["['x']", "['y']"], OCR, "x"),
    ("MTVQA_TEST", "MTVQADataset", TWO, {"category": ["FR"] * 2}, "x"),
]
# Of the other classes, what scoring reads of a row: a judge decides, or they need an
# add-on, or their rows are made from videos.
SCORED_ROWS: dict[str, Row] = {
    **{name: JUDGED[name][0] for name in ("MMVet", "LLaVABench")},
    "MMDUDataset": {"question": "['Is it?']", "answer": "['x']"},
    "MMLongBench": JUDGED["MMLongBench"][0],
    "ImageCaptionDataset": {"answer": "['a red box', 'one box']"},
    "VCRDataset": {"question": "Which?", "answer": "['the sea']"},
    "VideoMME": {**video_choices()[0], "index": 0},
    "MMBenchVideo": {**graded_videos()[0], "index": 0},
}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("index\tquestion\timage\tA\tanswer\n", "MMStar.tsv has no row to ask."),
        ("<html>\n", "has no column index and no column question and no column image"),
    ],
)
def test_a_published_table_without_rows(
    sandbox: Sandbox, tmp_path: Path, content: str, words: str
) -> None:
    table = tmp_path / "MMStar.tsv"
    table.write_text(content, encoding="utf-8")
    with pytest.raises(VlmEvalError) as caught:
        prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path / "cache")
    assert words in str(caught.value)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family[0])
def test_every_cell_of_a_published_table_is_kept(
    sandbox: Sandbox,
    tmp_path: Path,
    family: tuple[str, str, Sequence[str], Mapping[str, list[str]], str],
) -> None:
    name, class_name, references, columns, answer = family
    first, second = rows_of(references, **columns)
    rows = [first] + [
        {**second, "index": n, "question": f"Is {text}?", "note": text}
        | ({"B": f"is {text}"} if "B" in columns else {})
        for n, text in enumerate(ODD, start=1)
    ]
    rows[0] = {**first, "note": "plain"}
    table = write_table(tmp_path / f"{name}.tsv", rows)
    prepared = prepare(describe(table, class_name), sandbox, tmp_path)
    texts = read_texts(prepared.folder / FILE)
    assert texts["note"] == ["plain", *ODD]
    assert texts["question"] == ["What?", *(f"Is {text}?" for text in ODD)]
    # As ms-vlmeval itself reads the table.
    pd.testing.assert_frame_equal(
        read_frame(prepared.folder / FILE),
        pd.read_csv(table, sep="\t").drop(columns="image"),
    )
    samples = read_samples(prepared)
    assert [sample.index for sample in samples] == [str(n) for n in range(len(rows))]
    arrow = samples[1].prompt
    assert any(LONE.strip() in part.text for turn in arrow for part in turn)
    answers = [("0", answer), *((str(n), "neither") for n in range(1, len(rows)))]
    found = values(score(sandbox, prepared, answers).verdicts)
    assert len(found) == len(rows)
    assert found["0"] == 1
    assert sum(value or 0 for value in found.values()) == 1


def test_the_families_of_these_tests_are_all() -> None:
    # Those of screens only add images to what any class is scored by.
    with_adapter = {
        name
        for name, family in families.FAMILIES.items()
        if families.with_adapter(name) and not family.adapter.startswith("screens.")
    }
    assert {family[1] for family in FAMILIES} | set(SCORED_ROWS) == with_adapter


@pytest.mark.parametrize(
    "class_name",
    [
        pytest.param(name, marks=[pytest.mark.addons] if name in ADDONS else [])
        for name in SCORED_ROWS
    ],
)
def test_every_cell_is_there_when_answers_are_scored(
    sandbox_of: Callable[[str], Sandbox], tmp_path: Path, class_name: str
) -> None:
    first = SCORED_ROWS[class_name]
    rows = [
        {**first, "index": n, "note": text, "caption": text}
        for n, text in enumerate(ODD)
    ]
    if info := {"VideoMME": CHOICES, "MMBenchVideo": GRADED}.get(class_name):
        prepared = rows_only(tmp_path, "ImageVQADataset", rows)
        prepared = replace(prepared, info=info)
    else:
        prepared = rows_only(tmp_path, class_name, rows)
    texts = read_texts(tmp_path / FILE)
    assert texts["note"] == texts["caption"] == ODD
    indexes = texts["index"]
    assert indexes == [str(n) for n in range(len(ODD))]
    answers = [(index, [f"x {text}"]) for index, text in zip(indexes, ODD, strict=True)]
    found = score_in_sandbox(
        sandbox_of(class_name), prepared, answers, judge=replies_of(["3", "8 8"])
    )
    assert [verdict.index for verdict in found.verdicts] == indexes


def own_dataset(
    sandbox: Sandbox, folder: Path, rows: Sequence[Mapping[str, object]]
) -> PreparedDataset:
    """Prepare rows as a table of one's own, with options and without images."""
    table = write_table(folder / "Mine.tsv", rows)
    info = replace(
        describe(table, "ImageMCQDataset"), rules=OWN, modality="text", family="own"
    )
    return prepare(info, sandbox, folder)


def test_every_cell_of_a_table_of_one_s_own_is_its_text(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    rows = [
        {"question": "Which?", "answer": "B", "A": "red", "B": text} for text in ODD
    ]
    prepared = own_dataset(sandbox, tmp_path, rows)
    texts = read_texts(prepared.folder / FILE)
    assert texts["B"] == ODD
    assert texts["index"] == [str(n) for n in range(1, len(ODD) + 1)]
    for sample, text in zip(read_samples(prepared), ODD, strict=True):
        assert sample.prompt[0][-1].text.startswith(
            f"Question: Which?\nOptions:\nA. red\nB. {text}\nPlease "
        )
    answers = [(index, "B") for index in texts["index"]]
    scored = score(sandbox, prepared, answers)
    assert scored.value == 100
    assert set(values(scored.verdicts).values()) == {1}


def test_a_data_frame_of_such_cells_is_the_same_table(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    halves = [*ODD, "half \ud83d of a pair"]
    options = pd.Series(halves, dtype=object)
    frame = pd.DataFrame(
        {"question": "Which?", "answer": "B", "A": "red", "B": options}
    )
    table = write_frame("Mine", frame, tmp_path, tmp_path)
    info = replace(describe(table, "ImageMCQDataset"), rules=OWN, modality="text")
    prepared = prepare(info, sandbox, tmp_path)
    found = read_texts(prepared.folder / FILE)["B"]
    assert found == [*ODD, "half \ufffd of a pair"]
    assert LONE in read_samples(prepared)[0].prompt[0][-1].text


def test_every_cell_of_a_table_that_a_class_made_is_kept(tmp_path: Path) -> None:
    halves = "half \ud83d of a pair"
    texts = [*ODD, halves, "", None]
    count = len(texts)
    made = pd.DataFrame(
        {
            "index": range(count),
            "note": pd.Series(texts, dtype=object),
            "list": [[1, "a\rb"]] * count,
            "number": [0.1, None, 1e-300, *[2.0] * (count - 3)],
            "image": ["not kept"] * count,
        }
    )
    written, frame, _ = table_of(made)
    write_rows(tmp_path / FILE, written, frame)
    found = read_texts(tmp_path / FILE)
    assert found["note"] == [*ODD, "half \ufffd of a pair", "", ""]
    assert found["index"] == [str(n) for n in range(count)]
    assert found["list"] == ["[1, 'a\\rb']"] * count
    assert found["number"][:4] == ["0.1", "", "1e-300", "2.0"]
    assert set(found) == {"index", "note", "list", "number"}
    read = read_frame(tmp_path / FILE)
    pd.testing.assert_frame_equal(read, frame)
    assert list(read["number"][2:4]) == [1e-300, 2.0]
    assert read["number"].isna()[1]


def test_any_text_is_kept_in_a_sample(tmp_path: Path) -> None:
    halves = "half \ud83d of a pair"
    samples = [
        dict.fromkeys(COLUMNS, text) | {"prompt": [[["text", text]]]}
        for text in [*ODD, halves]
    ]
    assert write_samples(tmp_path / SAMPLES, samples) == len(samples)
    found = read_samples_of(tmp_path, "Any")
    plain = [*ODD, "half \ufffd of a pair"]
    assert [sample.reference for sample in found] == plain
    assert [sample.prompt[0][0].text for sample in found] == plain
    nothing = dict.fromkeys(COLUMNS) | {"index": "1", "prompt": []}
    write_samples(tmp_path / SAMPLES, [nothing])
    (empty,) = read_samples_of(tmp_path, "Any")
    assert (empty.category, empty.error, empty.prompt) == (None, None, ())


def test_a_full_disk_is_named_by_the_folder(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
import errno
from pytest_vlmeval.sandbox.inside import server

def prepare(folder):
    raise OSError(errno.ENOSPC, "Error writing bytes to file")  # as pyarrow does

print(json.dumps(server._answer(prepare, {"folder": "/cache/POPE"})))
"""
    assert run_inside(sandbox_environment, code, tmp_path) == {
        "fixable": "Cannot write /cache/POPE: No space left on device."
    }


def test_values_come_back_as_pandas_read_them(tmp_path: Path) -> None:
    texts = {
        "whole": ["1", "2", "3"],
        "gap": ["1", "", "007"],
        "word": ["NA", "x", "None"],
        "same": ["a", "b", "c"],
        "fraction": ["0.1", "1.50", "1e-300"],
        "truth": ["True", "False", "True"],
        "empty": ["", "", ""],
        "mixed": ["1", "x", ""],
        "a.b": ["x", "y", "z"],
        "same as pandas reads it": ["NA", "y", "z"],
    }
    source = "\t".join(texts) + "\n"
    source += "".join(
        "\t".join(row) + "\n" for row in zip(*texts.values(), strict=True)
    )
    table = tmp_path / "t.tsv"
    table.write_text(source, encoding="utf-8")
    read = pd.read_csv(table, sep="\t")
    # Of a column that is read in pieces, some may be numbers and others not.
    read["mixed"] = pd.Series([1, "x", float("nan")], dtype=object)
    write_rows(tmp_path / FILE, texts, read)
    pd.testing.assert_frame_equal(read_frame(tmp_path / FILE), read)
    assert read_texts(tmp_path / FILE) == texts
    assert read_texts(tmp_path / FILE, ("word", "none")) == {"word": texts["word"]}
    write_rows(tmp_path / FILE, texts)
    own = read_frame(tmp_path / FILE)
    pd.testing.assert_frame_equal(own, frame_of(texts))
    assert list(own["gap"].isna()) == [False, True, False]
    assert list(own["word"]) == texts["word"]


def test_splits_are_read_by_name(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = rows_of(TWO, split=["test", ""])
    table = write_table(tmp_path / "ChartQA_TEST.tsv", rows)
    prepared = prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    assert read_splits(prepared) == {"0": "test"}
    rows = [{**row, "image": cell(draw(1))} for row in rows_of(TWO)]
    table = write_table(tmp_path / "TextVQA_VAL.tsv", rows)
    prepared = prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    assert read_splits(prepared) == {}


def test_an_environment_without_pyarrow_says_so(
    sandbox_environment: SandboxEnvironment, tmp_path: Path
) -> None:
    code = """
sys.modules["pyarrow"] = None
from pytest_vlmeval.sandbox.inside import server
print(json.dumps(server._load_methods(None)))
"""
    said = run_inside(sandbox_environment, code, tmp_path)
    assert said.startswith("ms-vlmeval cannot be used in the environment of ")
    assert "pyarrow" in said
    assert said.endswith(
        ". --vlm-setup builds the sandbox anew; --vlm-sandbox-python takes an "
        "environment in which ms-vlmeval is installed."
    )


@pytest.mark.parametrize("damage", ["gone", "cut", "text"])
def test_damaged_rows_say_what_to_remove(
    sandbox: Sandbox, tmp_path: Path, damage: str
) -> None:
    rows = rows_of(TWO)
    table = write_table(tmp_path / "TextVQA_VAL.tsv", rows)
    prepared = prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    file = prepared.folder / FILE
    content = {"cut": file.read_bytes()[:-9], "text": b"index\n0\n"}.get(damage)
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    with pytest.raises(VlmEvalError) as caught:
        score(sandbox, prepared, [("0", "x")])
    text = (
        re.escape(f"{file} is damaged or gone: ")
        + r".+\. "
        + re.escape(
            f"Remove the folder {prepared.folder}, and the dataset is prepared again; "
            "answers are kept in the run store."
        )
    )
    assert re.fullmatch(text, str(caught.value))
