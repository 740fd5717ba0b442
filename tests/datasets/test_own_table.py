"""What a table of one's own is taken for, and when it is read again."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_vlmeval.datasets.own import (
    CIRCULAR,
    LAYOUT,
    OWN,
    TableFacts,
    describe_own,
    read_facts,
)
from pytest_vlmeval.errors import VlmEvalError
from tests.support.own_tables import access

IMAGE = "iVBOR" + "x" * 80


def write(folder: Path, *lines: str, name: str = "my.tsv") -> Path:
    """Write lines in which blanks stand for tabs and `~` for a blank."""
    path = folder / name
    text = "\n".join(lines) + "\n"
    path.write_text(
        text.replace(" ", "\t").replace("~", " ").replace("PIC", IMAGE),
        encoding="utf-8",
    )
    return path


def test_options_make_it_multiple_choice(tmp_path: Path) -> None:
    path = write(tmp_path, "index question answer A B image", "1 What? A red None PIC")
    info = describe_own(path, access(tmp_path))
    assert (info.name, info.class_name) == ("my", "ImageMCQDataset")
    assert (info.kind, info.modality, info.rules) == ("multiple_choice", "image", OWN)
    assert (info.has_references, info.judge) == (True, "optional")
    assert info.path == path


@pytest.mark.parametrize(
    ("answers", "class_name"),
    [
        (["yes", "No", "~NO~"], "ImageYORNDataset"),
        (["yes", "perhaps"], "ImageVQADataset"),
        (["['a',~'b']", "007"], "ImageVQADataset"),
    ],
)
def test_answers_decide_between_yes_no_and_open(
    tmp_path: Path, answers: list[str], class_name: str
) -> None:
    rows = [f"What? {answer} PIC" for answer in answers]
    path = write(tmp_path, "question answer image", *rows)
    assert describe_own(path, access(tmp_path)).class_name == class_name


def test_without_a_column_of_images_it_is_text(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer", "What? this")
    info = describe_own(path, access(tmp_path))
    assert (info.modality, info.class_name) == ("text", "ImageVQADataset")


def test_without_any_answer_it_has_no_references(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer A B image", "What?  x y PIC")
    info = describe_own(path, access(tmp_path))
    assert (info.has_references, info.kind) == (False, "multiple_choice")


@pytest.mark.parametrize(
    ("name", "header", "rules"),
    [
        ("my_circular.tsv", "index question answer A B image", CIRCULAR),
        ("my.tsv", "index g_index question answer A B image", CIRCULAR),
        ("MMBench_like.tsv", "index question answer A B image", OWN),
    ],
)
def test_rotations_are_known_by_a_column_or_the_name(
    tmp_path: Path, name: str, header: str, rules: str
) -> None:
    start = "1 1" if "g_index" in header else "1"
    path = write(tmp_path, header, f"{start} What? A x y PIC", name=name)
    assert describe_own(path, access(tmp_path)).rules == rules


def test_images_belong_to_the_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    path = write(tmp_path, "question answer image_path", "W x a.png")
    first = describe_own(path, access(tmp_path))
    assert describe_own(path, access(tmp_path)) == first
    (tmp_path / "a.png").write_bytes(b"another image")
    assert describe_own(path, access(tmp_path)).checksum != first.checksum


def test_a_byte_order_mark_and_windows_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "my.tsv"
    path.write_bytes(b"\xef\xbb\xbfquestion\tanswer\r\n\r\nWhat?\tthis\r\n")
    assert read_facts(path) == TableFacts(
        kind="vqa",
        has_images=False,
        has_references=True,
        grouped=False,
        whole_indexes=True,
        images={},
        without_image=1,
    )


def test_a_file_is_read_again_when_it_changed(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer", "What? yes")
    first = describe_own(path, access(tmp_path))
    write(tmp_path, "question answer", "What? maybe")
    second = describe_own(path, access(tmp_path))
    assert (first.kind, second.kind) == ("yes_no", "vqa")
    assert first.checksum != second.checksum


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
