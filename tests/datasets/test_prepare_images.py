"""Images of a prepared dataset: their own bytes, shared ones, broken ones."""

from __future__ import annotations

import hashlib
import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from pytest_vlmeval.datasets.download import FileAccess
from pytest_vlmeval.datasets.prepare import prepare_dataset, read_index, read_samples
from pytest_vlmeval.records import DatasetInfo, parts_of
from tests.support.sandbox_tables import (
    cell,
    choice_rows,
    describe,
    draw,
    media_of,
    prepare,
    shared_file,
    write_table,
)

if TYPE_CHECKING:
    from pathlib import Path

    from pytest_vlmeval.sandbox.process import Sandbox


@pytest.mark.parametrize(
    ("kind", "suffix", "media_type"),
    [
        ("PNG", ".png", "image/png"),
        ("JPEG", ".jpg", "image/jpeg"),
        ("WEBP", ".webp", "image/webp"),
        ("GIF", ".gif", "image/gif"),
        ("BMP", ".bmp", "image/bmp"),
        ("TIFF", ".tif", "image/tiff"),
    ],
)
def test_images_keep_their_bytes_and_get_their_true_type(
    sandbox: Sandbox, tmp_path: Path, kind: str, suffix: str, media_type: str
) -> None:
    data = draw(2, kind)
    rows = [{"index": "a", "question": "?", "answer": "x", "image": cell(data)}]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    (sample,) = read_samples(prepare(info, sandbox, tmp_path))
    assert sample.error is None
    assert sample.prompt[0][0].media == hashlib.sha256(data).hexdigest() + suffix
    assert sample.prompt[0][0].media_type == media_type


def test_several_images_in_a_row(sandbox: Sandbox, tmp_path: Path) -> None:
    images = [cell(draw(seed)) for seed in (1, 2, 1)]
    rows = [{"index": 1, "question": "?", "answer": "x", "image": str(images)}]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    prepared = prepare(info, sandbox, tmp_path)
    (sample,) = read_samples(prepared)
    names = [part.media for part in parts_of(sample.prompt) if part.kind == "image"]
    assert len(names) == 3
    assert names[0] == names[2]
    assert media_of(prepared) == set(names)


def test_images_in_files_beside_the_table(sandbox: Sandbox, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes(draw(1))
    rows = [
        {"index": 1, "question": "?", "answer": "x", "image_path": "images/one.png"},
        {"index": 2, "question": "?", "answer": "x", "image_path": "images/two.png"},
    ]
    info = describe(write_table(tmp_path / "T.tsv", rows), "ImageVQADataset")
    first, second = read_samples(prepare(info, sandbox, tmp_path))
    assert first.prompt[0][0].media_type == "image/png"
    assert second.error is not None
    assert second.error.endswith("images/two.png: No such file or directory")


def broken_images() -> dict[str, tuple[str, str]]:
    """Give cells that hold no image, with what is said of each."""
    png, jpeg = draw(1, "PNG", (64, 64)), draw(1, "JPEG", (256, 256))
    svg = b"<svg xmlns='http://www.w3.org/2000/svg'>" + b" " * 80
    huge = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(huge, "PNG")
    return {
        "cut PNG": (cell(png[:3000]), "image file is truncated"),
        "cut JPEG": (cell(jpeg[: len(jpeg) // 2]), "image file is truncated"),
        "no image": (cell(b"x" * 90), "its 90 bytes are not an image in JPEG, PNG"),
        "no base64": ("A" * 69, "its text is not base64 (Invalid base64-encoded"),
        "short": ("oops", "'oops' is neither base64 nor the index of a row with an "),
        "list": ("['a', b" + "]" * 60, "its list of images cannot be read ("),
        "empty list": ("[" + " " * 70 + "]", "its list of images is empty"),
        "vector": (cell(svg), "its 120 bytes are not an image in JPEG, PNG"),
        "bomb": (cell(huge.getvalue()), "it has 20000 x 20000 pixels, more than 175,"),
    }


def test_a_broken_row_fails_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    broken = broken_images()
    good = cell(draw(5))
    table = write_table(
        tmp_path / "T.tsv", choice_rows([good, *(c for c, _ in broken.values()), good])
    )
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    first, *others, last = read_samples(prepared)
    assert first.error is None
    assert last.error is None
    for number, (sample, expected) in enumerate(
        zip(others, broken.values(), strict=True), start=2
    ):
        start = f"row {number} (index {number - 1}): the image cannot be read: "
        assert sample.error is not None
        assert sample.error.startswith(start + expected[1]), sample.error
        assert sample.prompt == ()
    assert len(media_of(prepared)) == 1


def test_rotations_share_a_image_and_a_group(sandbox: Sandbox, tmp_path: Path) -> None:
    rows = [
        {**row, "index": index}
        for row, index in zip(
            choice_rows([cell(draw(1)), "7", cell(draw(2))]),
            (7, 1_000_007, 8),
            strict=True,
        )
    ]
    table = write_table(tmp_path / "T.tsv", rows)
    info = describe(table, "ImageMCQDataset", name="Own_circular")
    prepared = prepare(info, sandbox, tmp_path)
    assert [(row.index, row.group) for row in read_index(prepared)] == [
        ("7", "7"),
        ("1000007", "7"),
        ("8", "8"),
    ]
    assert len(media_of(prepared)) == 2


@pytest.mark.parametrize(
    ("name", "indexes", "category", "groups"),
    [
        (
            "MME",
            ("0", "1", "2"),
            ("color", "color", "count"),
            ("color/a.png", "color/a.png", "count/a.png"),
        ),
        (
            "HallusionBench",
            ("VD_chart_1_0_1_0", "VD_chart_1_0_1_1", "VS_chart_1_0_2_0"),
            ("VD", "VD", "VS"),
            ("chart_0_1", "chart_0_1", "chart_0_2"),
        ),
        ("POPE", ("0", "1", "2"), ("x", "x", "x"), (None, None, None)),
    ],
)
def test_what_a_metric_needs_whole_is_a_group(
    sandbox: Sandbox,
    tmp_path: Path,
    name: str,
    indexes: tuple[str, ...],
    category: tuple[str, ...],
    groups: tuple[str | None, ...],
) -> None:
    rows = [
        {
            "index": index,
            "question": "Is it red? Please answer yes or no.",
            "answer": "Yes",
            "category": each,
            "l2-category": "chart",
            "image_path": "a.png",
            "image": cell(draw(1)),
        }
        for index, each in zip(indexes, category, strict=True)
    ]
    table = write_table(tmp_path / f"{name}.tsv", rows)
    prepared = prepare(describe(table, "ImageYORNDataset"), sandbox, tmp_path)
    assert tuple(row.group for row in read_index(prepared)) == groups


def test_images_of_many_pieces_of_a_table(sandbox: Sandbox, tmp_path: Path) -> None:
    # More rows than the first piece has, and an image of which one is a repetition.
    drawn = [draw(seed) for seed in range(30)]
    cells = [*map(cell, drawn), "3", str([cell(drawn[4]), cell(drawn[5])])]
    table = write_table(tmp_path / "T.tsv", choice_rows(cells))
    prepared = prepare(describe(table, "ImageMCQDataset"), sandbox, tmp_path)
    shown = [
        [part.media for part in parts_of(sample.prompt) if part.kind == "image"]
        for sample in read_samples(prepared)
    ]
    names = [f"{hashlib.sha256(data).hexdigest()}.png" for data in drawn]
    assert shown == [*([name] for name in names), [names[3]], names[4:6]]
    assert media_of(prepared) == set(names)


def test_real_images(sandbox: Sandbox, tmp_path: Path) -> None:
    info = DatasetInfo(
        name="MathVision_MINI",
        class_name="MathVision",
        module="image_vqa",
        kind="vqa",
        md5="060fe4fa5d868987ce179307bd5f8a33",
    )
    table = shared_file("LMUData", "MathVision_MINI.tsv")
    prepared = prepare_dataset(
        info,
        FileAccess(table.parent, tmp_path, allow_modified=True, offline=True),
        sandbox=sandbox,
        sandbox_fingerprint="tests",
    )
    samples = read_samples(prepared)
    assert prepared.modified
    assert len(samples) == 304
    assert not [sample.error for sample in samples if sample.error]
    for sample in samples:
        for part in parts_of(sample.prompt):
            if part.kind == "image":
                data = (prepared.folder / "media" / part.media).read_bytes()
                assert part.media.startswith(hashlib.sha256(data).hexdigest())
