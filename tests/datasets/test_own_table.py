"""A table of one's own: what it is taken for, and which files its paths may open."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.own import (
    CIRCULAR,
    OWN,
    TableFacts,
    describe_own,
    read_facts,
)
from pytest_vlmeval.datasets.prepare import read_samples
from pytest_vlmeval.errors import VlmEvalError
from pytest_vlmeval.sandbox.calls import digest_in_sandbox
from pytest_vlmeval.sandbox.own_files import (
    MOST_IMAGE_BYTES,
    UnfitFileError,
    read_regular,
)
from pytest_vlmeval.sandbox.own_formats import layout
from tests.support.own_tables import access
from tests.support.sandbox_calls import run_inside
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    media_of,
    prepare,
    rows_of,
    write_table,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pytest_vlmeval.sandbox.environment import SandboxEnvironment
    from pytest_vlmeval.sandbox.process import Sandbox

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
    info = describe_own(str(path), access(tmp_path))
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
    assert describe_own(str(path), access(tmp_path)).class_name == class_name


def test_without_a_column_of_images_it_is_text(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer", "What? this")
    info = describe_own(str(path), access(tmp_path))
    assert (info.modality, info.class_name) == ("text", "ImageVQADataset")


def test_without_any_answer_it_has_no_references(tmp_path: Path) -> None:
    path = write(tmp_path, "question answer A B image", "What?  x y PIC")
    info = describe_own(str(path), access(tmp_path))
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
    assert describe_own(str(path), access(tmp_path)).rules == rules


def test_images_belong_to_the_checksum(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"image")
    path = write(tmp_path, "question answer image_path", "W x a.png")
    first = describe_own(str(path), access(tmp_path))
    assert describe_own(str(path), access(tmp_path)) == first
    (tmp_path / "a.png").write_bytes(b"another image")
    assert describe_own(str(path), access(tmp_path)).checksum != first.checksum


def test_a_byte_order_mark_and_windows_lines_do_not_matter(tmp_path: Path) -> None:
    path = tmp_path / "my.tsv"
    path.write_bytes(b"\xef\xbb\xbfquestion\tanswer\r\n\r\nWhat?\tthis\r\n")
    assert read_facts([path]) == TableFacts(
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
    first = describe_own(str(path), access(tmp_path))
    write(tmp_path, "question answer", "What? maybe")
    second = describe_own(str(path), access(tmp_path))
    assert (first.kind, second.kind) == ("yes_no", "vqa")
    assert first.checksum != second.checksum


BORROWED = (
    "its image '1' is neither base64, nor a path that ends as an image's, nor the "
    "index of a row with an image"
)
ACCEPTED_QUESTION = (
    "Its name is question, query, prompt, problem or instruction; "
    "--vlm-columns=question=NAME takes any other."
)
SEVERAL = (
    ": its columns may be parted by commas or semicolons. Use one of them in its first "
    "line, and put names that contain another into double quotes."
)
HEAD = "cannot be used (row 1 is the one below the names):"


def fault_of(path: Path) -> str:
    """Return what is said of a table, without its path in front."""
    with pytest.raises(VlmEvalError) as caught:
        describe_own(str(path), access(path.parent))
    text = str(caught.value)
    assert text.startswith(str(path))
    return text.removeprefix(str(path)).strip()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (
            "qestion answer image",
            "has no column question; is it 'qestion'? --vlm-columns=question=qestion "
            f"takes it. It has the columns qestion, answer, image. {ACCEPTED_QUESTION}",
        ),
        (
            "text answer image",
            "has no column question. It has the columns text, answer, image. "
            f"{ACCEPTED_QUESTION}",
        ),
        (
            "question image",
            "has no column answer. It has the columns question, image. Its name is "
            "answer, answers, label, target, solution, gt_answer, ground_truth or "
            "response; --vlm-columns=answer=NAME takes any other. Leave its cells "
            "empty, and give --vlm-mode=infer, to collect answers without a score.",
        ),
        (
            "question answer imgage",
            "has neither a column image nor image_path; is one of them 'imgage'? "
            "--vlm-columns=image=imgage takes it. It has the columns question, answer, "
            "imgage.",
        ),
        (
            "prompt problem answer",
            "has 2 columns that may be its question: prompt, problem. It has the "
            "columns prompt, problem, answer. Give --vlm-columns=question=prompt or "
            "--vlm-columns=question=problem.",
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
                "row 1: the answer 'C' is not the letter of one of its options (A, B), "
                "nor its text",
                "row 3: the answer 'B' is not the letter of one of its options (A), "
                "nor its text",
                "row 4: all its options are empty",
            ],
        ),
        (
            "index question answer image",
            [" What? x PIC", "2  x PIC", "3 What? x ", "4 What? x data:image/png"],
            [
                "row 1: its index is empty",
                "row 2: its question is empty",
                "row 4: its image is a data URL that is not in base64",
            ],
        ),
        (
            "question answer image",
            ["What? x PIC", "What? x 1", "What? x cat"],
            [BORROWED.replace("its image '1'", "row 3: its image 'cat'")],
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
                "row 3: has 1 cell, the line of names 3; a quote that is not closed "
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
        "A path of an image counts from the table's folder, or is absolute.",
    ]


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("my.tsv", b"", f"is empty. {layout('TSV')}"),
        ("my.csv", b"  \n", f"is empty. {layout('CSV')}"),
        ("my.jsonl", b"\n", f"is empty. {layout('JSON Lines')}"),
        (
            "my.tsv",
            b"question\nWhat?\n",
            f"is not a TSV file: its first line has no tab. {layout('TSV')}",
        ),
        (
            "my.parquet",
            b"question,answer\n",
            "is not a Parquet file: it does not begin with PAR1. Name it by what it "
            "is: .tsv, .csv, .jsonl, .json, each also with .gz, or .parquet.",
        ),
        (
            "my.parquet",
            b"PAR1 and no more",
            "is not a Parquet file that can be read (Parquet magic bytes not found in "
            "footer. Either the file is corrupted or this is not a parquet file.). "
            "Write it again, or download it again.",
        ),
        (
            "my.json",
            b'{"rows": []}',
            f"holds an object with rows. {layout('JSON')}",
        ),
        ("my.json", b"7", f"holds a number. {layout('JSON')}"),
        (
            "my.json",
            b'[{"question": ',
            "is not a JSON file (Expecting value: line 1 column 15 (char 14)). "
            f"{layout('JSON')}",
        ),
        (
            "my.json",
            b"[" * 100_000,
            f"is not a JSON file (it is nested too deeply). {layout('JSON')}",
        ),
        ("my.csv", b"question,answer;x\nWhat?,1;2\n", SEVERAL),
    ],
)
def test_a_file_that_is_not_what_its_name_says(
    tmp_path: Path, name: str, content: bytes, text: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert fault_of(path) == text


RENAMED = [
    ("my.tsv", b"question,answer\nWhat?,red\n", "csv", "a CSV file, with commas or "),
    ("my.tsv", b'[{"question": "W", "answer": "r"}]\n', "json", "a JSON file"),
    ("my.csv", b'{"question": "W", "answer": "r"}\n', "jsonl", "a JSON Lines file"),
    ("my.jsonl", b'[{"question": "W", "answer": "r"}]\n', "json", "a JSON file"),
    ("my.json", b'{"question": "W", "answer": "r"}\n' * 2, "jsonl", "Extra data: line"),
]


@pytest.mark.parametrize(("name", "content", "suffix", "what"), RENAMED)
def test_the_command_renames_a_file_to_what_it_is(
    tmp_path: Path, name: str, content: bytes, suffix: str, what: str
) -> None:
    folder = tmp_path / "it's mine"
    folder.mkdir()
    (folder / name).write_bytes(content)
    said = fault_of(folder / name)
    assert what in said
    (command,) = re.findall(r"(?m)^    (mv .*)$", said)
    subprocess.run(command, shell=True, check=True)
    assert read_facts([folder / f"my.{suffix}"]).has_references


ROWS = [
    {"question": "Which, then?", "answer": "None", "A": "NA", "B": "None"},
    {"question": "And 是?", "answer": "NA", "A": "NA", "B": "None"},
]
# How such a file comes to be, by the end of its name.
WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "xlsx": lambda frame, path: frame.to_excel(path, index=False),
    "utf16": lambda frame, path: frame.to_csv(
        path, sep="\t", index=False, encoding="utf-16"
    ),
    "tsv": lambda frame, path: frame.to_csv(
        path, sep="\t", index=False, encoding="utf-16"
    ),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_the_command_makes_a_table_of_another_file(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{**row, "answer": "AB"[n]} for n, row in enumerate(ROWS)]
    path = tmp_path / f"it's mine.{kind}"
    WRITERS[kind](pd.DataFrame(rows), path)
    before = path.read_bytes()
    with pytest.raises(VlmEvalError) as caught:
        read_facts([path])
    (command,) = re.findall(r"(?m)^    (python -c .*)$", str(caught.value))
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    monkeypatch.setenv("PATH", programs)
    subprocess.run(command, shell=True, check=True)
    assert path.read_bytes() == before
    made = tmp_path / ("it's mine-tabs.tsv" if kind == "tsv" else "it's mine.tsv")
    facts = read_facts([made])
    assert (facts.kind, facts.has_references) == ("multiple_choice", True)
    table = pd.read_csv(made, sep="\t", dtype=str, keep_default_na=False)
    assert table[[*rows[0]]].to_dict("records") == rows


def test_bytes_that_are_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "my.tsv"
    path.write_bytes(b"question\tanswer\nW\tcaf\xe9\n")
    text = fault_of(path)
    assert text.startswith(
        "is not a TSV file in UTF-8: after 0 lines it cannot be read ('utf-8'"
    )
    assert "With its encoding in the place of gb18030, this writes it in UTF-8:" in text
    (command,) = re.findall(r"(?m)^    (iconv .*)$", text)
    subprocess.run(command.replace("gb18030", "latin1"), shell=True, check=True)
    assert read_facts([tmp_path / "my-utf8.tsv"]).has_references


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
            f"nine: there is no file {tmp_path / 'nine.tsv'}. Name a table that exists "
            "(.tsv, .csv, .jsonl, .json, each also with .gz, or .parquet), or a folder "
            "with one. Did you mean mine.tsv?",
        ),
    ]:
        with pytest.raises(VlmEvalError) as caught:
            describe_own(str(path), access(tmp_path))
        assert str(caught.value) == text


OUTSIDE = "it lies outside of the dataset's own folders"


@pytest.fixture
def special(tmp_path: Path) -> Path:
    """Give a folder with files that must not be read, by what is said of each."""
    folder = tmp_path / "special"
    folder.mkdir()
    os.mkfifo(folder / "fifo.png")
    (folder / "link-to-fifo.png").symlink_to("fifo.png")
    (folder / "link-to-zero.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(folder / "socket.png"))
    (folder / "folder.png").mkdir()
    with (folder / "large.png").open("wb") as file:
        file.truncate(MOST_IMAGE_BYTES + 1)
    return folder


DEVICE = "it is a device or a socket, not a regular file"
SAID = {
    "/dev/zero": DEVICE,
    "fifo.png": "it is a FIFO, not a regular file",
    "link-to-fifo.png": "it is a FIFO, not a regular file",
    "link-to-zero.png": DEVICE,
    "socket.png": DEVICE,
    "folder.png": "it is a folder",
    "large.png": "it has 268,435,457 bytes, more than 268,435,456",
    "none.png": "No such file or directory",
}


def own_table(folder: Path, images: Sequence[str]) -> Path:
    """Write a table of one's own that names these images."""
    rows = [{"question": "?", "answer": "x", "image_path": each} for each in images]
    return write_table(folder / "Mine.tsv", rows)


def access_with(sandbox: Sandbox, folder: Path, said: list[str]) -> FileAccess:
    """Give how a run reads tables; what it says goes to `said`."""
    return FileAccess(
        cache_dir=folder / "cache",
        digest=lambda files: digest_in_sandbox(sandbox, files),
        data_root=folder / "LMUData",
        announce=said.append,
    )


def test_what_is_no_regular_file_is_told_with_its_row(
    sandbox: Sandbox, special: Path
) -> None:
    (special / "good.png").write_bytes(draw(1))
    table = own_table(special, ["good.png", *SAID, "a\0b.png"])
    for attempt in range(2):
        found = access_with(sandbox, special.parent / str(attempt), [])
        with pytest.raises(VlmEvalError) as caught:
            describe_own(str(table), found)
        lines = str(caught.value).splitlines()
        assert lines[1:6] == [
            f"  row {row}: {name}: {reason}"
            for row, (name, reason) in enumerate(list(SAID.items())[:5], start=2)
        ]
        assert lines[6] == "  and 4 others"


@pytest.mark.parametrize("name", [name for name in SAID if name != "/dev/zero"])
def test_a_published_table_waits_for_no_file(
    sandbox: Sandbox, special: Path, tmp_path: Path, name: str
) -> None:
    # What becomes of a file between the first look and the preparation.
    rows = [
        {"index": 1, "question": "?", "answer": "x", "image_path": name},
        {"index": 2, "question": "?", "answer": "x", "image_path": "good.png"},
    ]
    (special / "good.png").write_bytes(draw(1))
    info = describe(write_table(special / "T.tsv", rows), "ImageVQADataset")
    bad, good = read_samples(prepare(info, sandbox, tmp_path))
    assert good.error is None
    assert bad.error is not None
    assert bad.error.endswith(f"{name}: {SAID[name]}")
    own = replace(info, rules=OWN, confined=False, checksum="another")
    bad, good = read_samples(prepare(own, sandbox, tmp_path))
    assert good.error is None
    assert bad.error is not None
    assert bad.error.endswith(f"{name}: {SAID[name]}")


def test_a_file_that_becomes_a_fifo_is_not_waited_for(tmp_path: Path) -> None:
    path, file, fifo = (tmp_path / name for name in ("x.png", "file", "fifo"))
    done = threading.Event()

    def swap() -> None:
        while not done.is_set():
            file.write_bytes(b"image")
            file.replace(path)
            os.mkfifo(fifo)
            fifo.replace(path)

    file.write_bytes(b"image")
    file.replace(path)
    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        found = {"read": 0, "refused": 0}
        reasons = set()
        while min(found.values()) < 200:
            try:
                assert read_regular(path, 100) == b"image"
                found["read"] += 1
            except UnfitFileError as error:
                reasons.add(error.strerror)
                found["refused"] += 1
    finally:
        done.set()
        swapping.join()
    assert reasons == {"it is a FIFO, not a regular file"}


def test_no_more_than_the_bound_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"12345")
    assert read_regular(path, 5) == b"12345"
    with pytest.raises(UnfitFileError, match="it has 5 bytes, more than 4"):
        read_regular(path, 4)


@pytest.fixture
def private(tmp_path: Path) -> Path:
    """Give an image that no table has to do with."""
    folder = tmp_path / "private"
    folder.mkdir()
    (folder / "photo.png").write_bytes(draw(7))
    return folder / "photo.png"


@pytest.mark.parametrize("way", ["absolute", "up", "link", "linked folder"])
def test_a_published_table_reads_no_file_outside_of_its_folder(
    sandbox: Sandbox, tmp_path: Path, private: Path, way: str
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "link.png").symlink_to(private)
    (folder / "linked").symlink_to(private.parent)
    path = {
        "absolute": str(private),
        "up": "../private/photo.png",
        "link": "link.png",
        "linked folder": "linked/photo.png",
    }[way]
    row = {"question": "?", "answer": "x"}
    rows = [
        {**row, "index": 1, "image_path": path},
        {**row, "index": 2, "image_path": "good.png"},
    ]
    (folder / "good.png").write_bytes(draw(1))
    info = describe(write_table(folder / "T.tsv", rows), "ImageVQADataset")
    bad, good = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert good.error is None
    assert bad.error is not None
    leads = f", that is {private}" if "link" in way else ""
    assert bad.error.endswith(f"{path}{leads}: {OUTSIDE}")
    # A table of one's own may.
    own = replace(info, rules=OWN, confined=False, checksum="another")
    samples = read_samples(prepare(own, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]


@pytest.mark.parametrize("class_name", ["ImageMCQDataset", "MathVista"])
def test_a_published_table_changes_no_file_outside_of_its_folder(
    sandbox: Sandbox, tmp_path: Path, private: Path, class_name: str
) -> None:
    # Where a table has images and paths, ms-vlmeval writes the one to the other.
    before = private.read_bytes()
    further = {"question_type": "free_form", "answer_type": "integer"}
    further |= {"choices": "[]", "precision": "0", "answer_option": "1"}
    further |= {"skills": "[]", "task": "sums"}
    paths = [str(private), f"../../../../../../..{private}", str(tmp_path / "new.png")]
    data = [cell(draw(seed)) for seed in range(3)]
    rows = [
        {**row, **further, "image_path": path}
        for row, path in zip(choice_rows(data), paths, strict=True)
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    info = describe(write_table(folder / "MathVista_MINI.tsv", rows), class_name)
    prepared = prepare(info, sandbox, tmp_path / "cache")
    # What is shown is the table's own image, or the row says why there is none.
    own = {name.partition(".")[0] for name in media_of(prepared)}
    for sample in read_samples(prepared):
        shown = [part.media for turn in sample.prompt for part in turn if part.media]
        assert bool(shown) != (sample.error is not None)
        assert {name.partition(".")[0] for name in shown} <= own
    assert private.read_bytes() == before
    assert not private.is_symlink()
    assert not (tmp_path / "new.png").exists()
    assert draw(7) not in [
        file.read_bytes() for file in (prepared.folder / "media").iterdir()
    ]


def test_whatever_opens_a_file_is_kept_in_the_dataset_s_folders(
    sandbox_environment: SandboxEnvironment, tmp_path: Path, private: Path
) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(private)
    code = f"""
import os, pathlib, shutil, tempfile
import pandas as pd
from PIL import Image
from pytest_vlmeval.sandbox.inside.job import Job, running
private, cwd = pathlib.Path({str(private)!r}), pathlib.Path.cwd().resolve()
job = Job(rows=pd.DataFrame(), folder=cwd, on_progress=print, within=[cwd])
actions = dict(
    open=lambda: open(private),
    image=lambda: Image.open(str(private)),
    link=lambda: open("link"),
    low=lambda: os.open(private, os.O_RDONLY),
    write=lambda: open(private.parent / "new", "w"),
    up=lambda: open("../private/photo.png"),
    remove=lambda: os.remove(private),
    move=lambda: os.rename(private, "mine"),
    replace=lambda: os.replace("own", private),
    point=lambda: os.symlink("own", private.parent / "new"),
    hard=lambda: os.link(private, "mine"),
    copy=lambda: shutil.copy(private, "mine"),
    system=lambda: open(os.__file__, "a"),
)
pathlib.Path("own").write_text("x")
with running(job):
    found = {{name: attempt(action) for name, action in actions.items()}}
    import xml.dom.minidom, colorsys
    def own():
        with tempfile.TemporaryDirectory(dir=cwd) as folder:
            pathlib.Path(folder, "a").write_text(pathlib.Path("own").read_text())
            os.symlink("a", pathlib.Path(folder, "b"))
        open(os.__file__).close()
        # Packages write there as they are imported.
        for mode in ("r", "w", "r+b"):
            open(os.devnull, mode).close()
    found["own"] = attempt(own)
job.within = None
with running(job):
    found["anywhere"] = attempt(lambda: open(private).close())
print(json.dumps(found))
"""
    found = run_inside(sandbox_environment, code, inside)
    assert found.pop("own") == found.pop("anywhere") == "nothing"
    for name, said in found.items():
        assert said.startswith("ContainedError: "), (name, said)
        assert said.endswith(OUTSIDE), (name, said)
    assert private.read_bytes() == draw(7)
    assert list(private.parent.iterdir()) == [private]


def test_a_table_of_one_s_own_may_name_images_anywhere_and_says_so(
    sandbox: Sandbox, tmp_path: Path, private: Path
) -> None:
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "near.png").write_bytes(draw(1))
    (folder / "link.png").symlink_to(private)
    table = own_table(folder, ["near.png", str(private), "link.png"])
    said: list[str] = []
    found = access_with(sandbox, tmp_path, said)
    info = describe_own(str(table), found)
    assert said == [f"Mine.tsv names images outside of its folder, in {private.parent}"]
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None] * 3
    # A changed image changes the dataset; one that is as it was is not read again.
    assert describe_own(str(table), found).checksum == info.checksum
    blind = found._replace(digest=lambda files: pytest.fail(f"{files} are read"))
    assert describe_own(str(table), blind).checksum == info.checksum
    private.write_bytes(draw(8))
    assert describe_own(str(table), found).checksum != info.checksum
    with pytest.raises(VlmEvalError) as caught:
        describe_own(str(table), found._replace(own_paths="inside"))
    assert str(caught.value).splitlines() == [
        f"{table} cannot be used (row 1 is the one below the names):",
        f"  row 2: {private}: {private} lies outside of the table's folder",
        f"  row 3: link.png: {private} lies outside of the table's folder",
        "--vlm-data-paths=inside reads no images outside of the table's folder. Move "
        "them there, or leave the option out.",
    ]
    (folder / "link.png").unlink()
    private.rename(folder / "moved.png")
    table = own_table(folder, ["near.png", "moved.png"])
    assert describe_own(str(table), found._replace(own_paths="inside")).confined


def test_rows_with_and_without_images(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(draw(1))
    one, two = cell(draw(2)), cell(draw(3))
    options = {"question": "Which?", "A": "red", "B": "blue"}
    rows = [
        {**options, "answer": "a", "image": one, "image_path": ""},
        {**options, "answer": " B ", "image": "", "image_path": ""},
        {**options, "answer": "b", "image": str([one, two]), "image_path": ""},
        {**options, "answer": "A", "image": "1", "image_path": ""},
        {**options, "answer": "A", "image": "", "image_path": "a.png"},
        {**options, "answer": "A", "image": cell(b"x" * 90), "image_path": ""},
        {**options, "answer": "A", "image": "A" * 69, "image_path": ""},
    ]
    table = write_table(tmp_path / "Mine.tsv", rows)
    said: list[str] = []
    info = describe_own(str(table), access_with(sandbox, tmp_path, said))
    assert said == ["Mine: 1 row has no image and will be asked as text alone"]
    assert (info.modality, info.class_name) == ("image", "ImageMCQDataset")
    prepared = prepare(info, sandbox, tmp_path / "cache")
    samples = read_samples(prepared)
    shown = [
        [part.media for turn in sample.prompt for part in turn if part.media]
        for sample in samples
    ]
    assert [len(each) for each in shown] == [1, 0, 2, 1, 1, 0, 0]
    assert shown[3] == shown[0]
    assert [sample.reference for sample in samples] == list("ABBAAAA")
    assert [sample.error for sample in samples[:5]] == [None] * 5
    start = "row 6 (index 6): the image cannot be read: its 90 bytes are not an "
    assert (samples[5].error or "").startswith(start)
    start = "row 7 (index 7): the image cannot be read: its text is not base64 ("
    assert (samples[6].error or "").startswith(start)


def test_without_any_image_it_is_text(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [{"question": "?", "answer": "x", "image": "", "image_path": ""}] * 2
    info = describe_own(
        str(write_table(tmp_path / "Mine.tsv", rows)),
        access_with(sandbox, tmp_path, []),
    )
    assert info.modality == "text"
    samples = read_samples(prepare(info, sandbox, tmp_path / "cache"))
    assert [sample.error for sample in samples] == [None, None]


def test_avif_is_taken_where_pillow_reads_it(
    sandbox_environment: SandboxEnvironment, sandbox: Sandbox, tmp_path: Path
) -> None:
    data = draw(2, "AVIF")
    rows = rows_of(["x"])
    table = write_table(tmp_path / "T.tsv", [{**rows[0], "image": cell(data)}])
    (sample,) = read_samples(
        prepare(describe(table, "ImageVQADataset"), sandbox, tmp_path)
    )
    assert sample.error is None
    assert sample.prompt[0][0].media_type == "image/avif"
    # In an environment whose Pillow has no such decoder, and of what it never reads.
    code = f"""
from PIL import features
known = features.check
features.check = lambda name: name != "avif" and known(name)
from importlib import reload
from pytest_vlmeval.sandbox.inside import media
check_image = reload(media).check_image
heic = b"\\0\\0\\0\\x1cftypheic" + b"x" * 80
print(json.dumps([attempt(lambda: check_image(data))
                  for data in (bytes.fromhex({data.hex()!r}), heic)]))
"""
    avif, heic = run_inside(sandbox_environment, code, tmp_path)
    for name, said in (("AVIF", avif), ("HEIC", heic)):
        assert said.startswith(f"ImageError: it is {name}, which Pillow ")
        assert said.endswith(
            " of the sandbox's environment does not read. Convert it to PNG or JPEG."
        )


def test_json_of_digests_has_a_reason_for_each_file(
    sandbox: Sandbox, special: Path
) -> None:
    files = [special / name for name in ("fifo.png", "large.png")]
    found = digest_in_sandbox(sandbox, files)
    assert json.loads(json.dumps(found)) == [
        ["", "it is a FIFO, not a regular file"],
        ["", "it has 268,435,457 bytes, more than 268,435,456"],
    ]
