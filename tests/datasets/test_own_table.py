"""What a table of one's own is taken for, and when it is read again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_vlmeval.datasets.own import (
    CIRCULAR,
    OWN,
    OwnAccess,
    TableFacts,
    describe_own,
    read_facts,
)
from pytest_vlmeval.sandbox.inside.tables import digest_files

IMAGE = "iVBOR" + "x" * 80


def digest(files: Sequence[Path]) -> list[tuple[str, str]]:
    """Read files as the sandbox does, in this process."""
    return list(digest_files([str(file) for file in files])["digests"])


def access(folder: Path) -> OwnAccess:
    """Give what is kept in a folder of a test."""
    return OwnAccess(
        cache_dir=folder / "cache", digest=digest, data_root=folder / "LMUData"
    )


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
