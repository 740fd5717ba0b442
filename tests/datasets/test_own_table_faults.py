"""What is said of a table of one's own that has faults, or is no table."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.datasets.own import LAYOUT, describe_own
from pytest_vlmeval.errors import VlmEvalError
from tests.datasets.test_own_table import access, write

BORROWED = (
    "its image '1' is neither base64 nor the index of a row with an image; paths "
    "belong in a column image_path"
)
HEAD = "cannot be used (row 1 is the one below the names):"


def fault_of(path: Path) -> str:
    """Return what is said of a table, without its path in front."""
    with pytest.raises(VlmEvalError) as caught:
        describe_own(path, access(path.parent))
    text = str(caught.value)
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).strip()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (
            "qestion answer image",
            "has no column question; is it 'qestion'? Rename that. It has the columns "
            "qestion, answer, image.",
        ),
        (
            "Question answer image",
            "has no column question; is it 'Question'? Rename that. It has the columns "
            "Question, answer, image.",
        ),
        (
            "text answer image",
            "has no column question. It has the columns text, answer, image.",
        ),
        (
            "question image",
            "has no column answer. It has the columns question, image. Leave its cells "
            "empty, and give --vlm-mode=infer, to collect answers without a score.",
        ),
        (
            "question answer imgage",
            "has neither a column image (base64) nor image_path; is one of them "
            "'imgage'? Rename that. It has the columns question, answer, imgage.",
        ),
        (
            "question answer picture",
            "has neither a column image (base64) nor image_path; is one of them "
            "'picture'? Rename that. It has the columns question, answer, picture.",
        ),
        (
            "question answer image answer",
            "has more than one column answer. It has the columns question, answer, "
            "image, answer.",
        ),
        (
            "question answer image A",
            "has options in A: they are read from the columns A, B and so on, at least "
            "two. It has the columns question, answer, image, A.",
        ),
        (
            "question answer image a b",
            "has options in a, b: they are read from the columns A, B and so on, at "
            "least two. It has the columns question, answer, image, a, b.",
        ),
    ],
)
def test_a_header_that_cannot_be_used(tmp_path: Path, header: str, text: str) -> None:
    assert fault_of(write(tmp_path, header, header)) == text


@pytest.mark.parametrize(
    ("header", "rows", "faults"),
    [
        (
            "question answer A B image",
            ["What? C x y PIC", "What? A x y PIC", "What? B x  PIC", "W A   PIC"],
            [
                "row 1: the answer 'C' is not the letter of one of its options (A, B)",
                "row 3: the answer 'B' is not the letter of one of its options (A)",
                "row 4: all its options are empty",
            ],
        ),
        (
            "index question answer image",
            [" What? x PIC", "2  x PIC", "3 What? x ", "4 What? x data:image/png"],
            [
                "row 1: its index is empty",
                "row 2: its question is empty",
                "row 4: its image is a data URL; leave only what follows 'base64,'",
            ],
        ),
        (
            "question answer image",
            ["What? x PIC", "What? x 1", "What? x cat.png"],
            [
                "row 3: its image 'cat.png' is neither base64 nor the index of a row "
                "with an image; paths belong in a column image_path"
            ],
        ),
        (
            "question answer image",
            ["What? ['x'] PIC", "What? [1,~2] PIC", "What? [x] PIC"],
            [
                "row 2: the answer '[1, 2]' is a list, but not one of texts; write "
                "each in quotes"
            ],
        ),
        (
            "question answer image",
            ["What? x PIC", "What?  PIC"],
            ["row 2: its answer is empty"],
        ),
        (
            "question answer image",
            ["What? x PIC", "What? x", '"What? x PIC', "What? x PIC"],
            [
                "row 2: has 2 cells, the line of names 3; a quote that is not closed "
                "swallows what follows",
                "row 3: has 1 cells, the line of names 3; a quote that is not closed "
                "swallows what follows",
            ],
        ),
        (
            "index g_index question answer A B image",
            ["1 1 What? A x y PIC", "2 7 What? A x y PIC"],
            ["row 2: its g_index '7' is no row's index"],
        ),
        (
            "question answer image_path",
            ["What? x []", "What? x [1]", "What? x ", "What? x [a,"],
            [
                "row 2: its image_path '[1]' is neither a path nor a list of paths",
            ],
        ),
        (
            "question answer image",
            ["What? x 1"] * 8,
            [*(f"row {number}: {BORROWED}" for number in range(1, 6)), "and 3"],
        ),
    ],
)
def test_rows_that_cannot_be_used(
    tmp_path: Path, header: str, rows: list[str], faults: list[str]
) -> None:
    lines = fault_of(write(tmp_path, header, *rows)).splitlines()
    assert lines[0] == HEAD
    for line, fault in zip(lines[1:], faults, strict=True):
        assert line.strip().removesuffix(" others") == fault


def test_images_that_do_not_exist(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    path = write(
        tmp_path, "question answer image_path", "W x a.png", "W x ['a.png',~'b.png']"
    )
    assert fault_of(path).splitlines() == [
        HEAD,
        "  row 2: b.png: No such file or directory",
        "A path in image_path counts from the table's folder, or is absolute.",
    ]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "it is empty"),
        (b"  \n", "it is empty"),
        (b"question,answer,image\n", "it is a CSV file, with commas or semicolons"),
        (b'[{"question": 1}]\n', "it is JSON"),
        (b"question\nWhat?\n", "it is without a tab in its first line"),
        (b"PK\x03\x04\x14\x00", "it is an Excel or ZIP file"),
        (b"PAR1\x15\x04", "it is a Parquet file"),
        ("question\tanswer".encode("utf-16"), "it is in UTF-16"),
    ],
)
def test_a_file_of_another_kind(tmp_path: Path, content: bytes, text: str) -> None:
    path = tmp_path / "my.tsv"
    path.write_bytes(content)
    assert fault_of(path) == f"is not a TSV: {text}. {LAYOUT}"


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "my.tsv"
    path.write_bytes(b"question\tanswer\nW\tcaf\xe9\n")
    text = fault_of(path)
    assert text.startswith("is not a TSV: after 0 lines it cannot be read ('utf-8'")
    assert text.endswith(LAYOUT)


def test_a_table_without_rows(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer image")
    assert fault_of(path) == "has no rows below the line of names."


def test_a_name_that_test_ids_cannot_have(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer", "W x", name="my[1].tsv")
    assert fault_of(path) == (
        ": its name is part of test ids and cannot be 'my[1]' there. Rename the file "
        "without brackets, slashes, '::', control characters and blanks at its "
        "beginning or end."
    )


def test_groups_need_whole_numbers(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "index question answer A B image",
        "q1 W A x y PIC",
        name="circular.tsv",
    )
    assert fault_of(path) == (
        ": a table with a column g_index or 'circular' in its name asks each question "
        "once per rotation of its options, and so needs whole numbers in its column "
        "index."
    )


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    write(tmp_path, "question answer", "W x", name="mine.tsv")
    for path, text in [
        (
            tmp_path / "nine.tsv",
            f"nine: there is no file {tmp_path / 'nine.tsv'}. Name a .tsv file that "
            "exists. Did you mean mine.tsv?",
        ),
        (tmp_path, f"{tmp_path} is a folder. Name a .tsv file in it."),
    ]:
        with pytest.raises(VlmEvalError) as caught:
            describe_own(path, access(tmp_path))
        assert str(caught.value) == text
